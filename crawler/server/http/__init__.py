"""HTTP itself, without the meaning of requests.

site                  the listening socket
connection_limits     how many connections there may be, and how slow
request_body          bodies, as they arrive
responses             JSON, and streams
problem               error responses
routing               routes by their path below the mount
"""

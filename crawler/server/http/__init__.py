"""HTTP itself: sockets, bodies and responses, without the meaning of requests.

site                  the listening socket
connection_limits     the number of connections, and their minimal speed
request_body          bodies, as they arrive
presence              work that ends when its client leaves
responses             JSON, and streams
problem               error responses
routing               routes by their path below the mount
"""

"""The middleware that every request passes, from the outside in.

access_log            gives it an id, and logs it
request_metrics       counts and measures it
problems              turns errors into responses
framing               refuses requests whose end is not certain
proxy_headers         reads the client's address from trusted proxies
cors                  with --cors-origin: lets web pages of other origins in
trailing_slash        redirects /tasks/ to /tasks
auth                  checks its token and its quota
  loop_check          refuses changes that a service asks for
  origin_check        without tokens: checks that it comes from this machine
"""

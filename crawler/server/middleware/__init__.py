"""What every request passes, from the outside in.

access_log            gives it an id, and logs it
request_metrics       counts and measures it
problems              turns errors into responses
proxy_headers         reads the client's address from trusted proxies
auth                  admits it, by token and by quota
origin_check        without tokens: by where it comes from
"""

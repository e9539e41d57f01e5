"""One HTTP exchange on a connection: send a request, read the response.

exchange                formats a request and reads its response over HTTP/1.1
http2                   the same over HTTP/2
├── response_body       takes a body out of its framing, decompresses it, finds the title
│   └── text_encoding   decodes text as browsers do
└── response_head       parses status lines and headers as browsers do
"""

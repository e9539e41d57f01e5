"""One HTTP exchange on a connection: the request, the head of the response, and its body as far as it is wanted.

exchange            formats a request, reads a response
├── http2           the same over HTTP/2
├── response_head   parses status lines and headers, as a browser does
└── response_body   deframes, decompresses; finds the title
└── text_encoding   the encodings of the Web
"""

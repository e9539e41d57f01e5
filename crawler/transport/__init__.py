"""Send one HTTP request over our own connections: resolve, check the address, connect, and time each phase.

Other packages may import from `base` (the `Transport` interface), `socket_transport` and what its constructor takes
(`address_guard`, `sockets.connection_pool`, `dns.resolver`), `http.response_body`, and `server_context` of
`tls.openssl`.

    base                the interface that probing uses
    socket_transport    one hop on our own connections
    ├── http/           formats requests, reads responses, over HTTP/1.1 and HTTP/2
    ├── proxy           connects through a proxy
    │   └── proxy_handshakes    CONNECT and SOCKS5
    ├── tls/            TLS by two libraries
    ├── sockets/        opens, watches and keeps connections
    ├── dns/            resolves names to addresses
    ├── address_guard   addresses that must not be dialled
    ├── timing          how long each phase takes
    └── error_mapping   exceptions to the errors of results
        └── error_tables    its rules, as data
"""

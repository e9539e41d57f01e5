"""TLS by two libraries: rustls first, and OpenSSL for every server that rustls refuses.

Import `client` (the TLS of probes) and `openssl` (`server_context`) from outside.

    client              TlsClient: chooses the library for each origin, and retries with OpenSSL
    ├── handshake       one handshake by either library
    ├── rustls          contexts and sockets of rustls
    ├── openssl         contexts and sessions of OpenSSL
    ├── tls_in_tls      TLS inside of TLS, through an https proxy
    ├── issuers         fetches intermediate certificates that servers omit
    ├── refusals        finds the error for a server that OpenSSL refused
    │   └── messages    the messages of these errors
    └── report          what results report about a connection
        ├── names       matches a host with the names of a certificate
        └── certificates    parses certificates
"""

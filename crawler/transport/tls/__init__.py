"""TLS by two libraries: rustls first, and OpenSSL with a browser's offer for what rustls refuses.

Import `client` (handshakes of probes) and `openssl` (`server_context`) from outside.

    client              which library is asked, and when again
    ├── rustls          rustls
    ├── openssl         OpenSSL: contexts, sessions
    ├── over_tls        TLS on a connection that has TLS already
    ├── issuers         intermediates that servers do not send
    ├── refusals        why a server was refused
    │   └── messages    refusals in words
    └── report          what a handshake tells
        ├── names       the names of a certificate and the host
        └── certificates    the fields of certificates
"""

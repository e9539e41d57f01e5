"""One HTTP exchange on the wire: resolved, guarded, timed, with every failure explained.

Other packages may import from `base` (the `Transport` interface), `socket_transport` and what its constructor takes
(`address_guard`, `connection_pool`, `resolver`), `response_body`, and `server_context` of `tls`.

    base                   the interface that probing uses
    socket_transport       one hop on our own connections
    |  http2_exchange      the same over HTTP/2
    |  http_exchange       format a request, read a response
    |  |  response_body    deframe, decompress; find the title
    |  |  |  text_encoding the encodings of the Web
    |  |  response_head    parse status lines and headers
    |  proxy               connect through a proxy
    |  |  proxy_handshakes CONNECT and SOCKS5
    |  dialling            connect to the first address that answers
    |  connection_pool     idle connections
    |  |  connection       one socket, with or without TLS
    |  |  |  tls_over_tls  TLS on a connection that has TLS already
    |  |  |  poller        wait for sockets
    |  poller_choice       epoll_poller on Linux, loop_poller elsewhere
    |  resolver            names to addresses, each looked up once
    |  |  dns_client       ask c-ares, then more patiently
    |  |  |  patient_query ask until the deadline
    |  |  |  dns_messages  format queries, read responses
    |  |  dns_failures     what failed lookups mean, in words
    |  address_order       which addresses to try, and in which order
    |  address_guard       addresses that must not be dialled
    |  tls_client          the two TLS libraries: which one is asked, and when again
    |  |  tls_rustls       rustls
    |  |  tls              OpenSSL: contexts, sessions
    |  |  tls_issuers      intermediates that servers do not send
    |  |  tls_refusals     why a server was refused
    |  |  tls_report       what a handshake tells
    |  |  tls_names        the names of a certificate and the host
    |  |  certificates     the fields of certificates
    |  timing              how long each phase takes
    |  error_mapping       exceptions to the errors of results
    |  |  error_tables     its rules, as data
    |  |  tls_messages     refusals by TLS in words
"""

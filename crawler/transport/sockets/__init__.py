"""Connections: dialled, watched, kept.

dialling            connects to the first address that answers
├── address_order   which addresses to try, and in which order
└── connection_pool idle connections
└── connection  one socket, with or without TLS
└── poller  waits for sockets; poller_choice takes epoll_poller on Linux, loop_poller elsewhere
"""

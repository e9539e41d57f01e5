"""robots.txt by RFC 9309, in bounded time.

gate                lets a probe pass when robots.txt allows it
└── cache           the known rules, by origin
└── rules       reads a file for one user agent, and compares URLs with it
"""

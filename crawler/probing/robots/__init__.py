"""robots.txt by RFC 9309, in bounded time.

gate            RobotsGate: lets a probe pass if robots.txt allows it, and fetches the file
└── cache       the known rules, by origin
└── rules   parses a file for one user agent, and compares URLs with its rules
"""

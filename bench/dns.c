/*
 * A DNS server on the UDP socket that is its standard input. Every name has one A record in 127/8, made from the name
 * itself, and nothing else; a name that ends in "absent.internal" does not exist.
 */
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>

enum { HEADER = 12, A = 1, NXDOMAIN = 3 };

static const char ABSENT[] = "\6absent\10internal";

/* Turns a query into its answer, in place; gives the answer's length, 0 for what is no query. */
static size_t answer(uint8_t *message, size_t size) {
    size_t at = HEADER;
    uint32_t hash = 2166136261u; /* FNV-1a */
    int absent = 0;
    if (size < HEADER + 5 || message[2] & 0x80 || message[5] != 1) return 0;
    while (at < size && message[at]) {
        absent |= size - at >= sizeof ABSENT && !strncasecmp((char *)message + at, ABSENT, sizeof ABSENT);
        for (size_t end = at + message[at] + 1; at < end && at < size; at++) hash = (hash ^ (message[at] | 0x20)) * 16777619u;
    }
    if (at + 5 > size) return 0;
    int type = message[at + 1] << 8 | message[at + 2];
    size_t end = at + 5;
    message[2] = 0x84 | (message[2] & 1); /* response, authoritative, RD as asked */
    message[3] = 0x80 | (absent ? NXDOMAIN : 0);
    memset(message + 6, 0, 6); /* no records yet, and none of the query's (EDNS) */
    if (absent || type != A) return end;
    message[7] = 1;
    const uint8_t record[] = {0xc0, HEADER, 0, A, 0, 1, 0, 0, 1, 44, 0, 4, /* this name, A, IN, 300 s, 4 bytes */
                              127, 1 + (hash >> 16) % 200, hash >> 8 & 255, 1 + (hash & 255) % 254};
    memcpy(message + end, record, sizeof record);
    return end + sizeof record;
}

int main(void) {
    uint8_t message[1024];
    struct sockaddr_storage peer;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    for (;;) {
        socklen_t length = sizeof peer;
        ssize_t size = recvfrom(0, message, 512, 0, (struct sockaddr *)&peer, &length);
        if (size < 0) return 1;
        if ((size = answer(message, size))) sendto(0, message, size, 0, (struct sockaddr *)&peer, length);
    }
}

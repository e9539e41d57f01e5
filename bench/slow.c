/*
 * slow MILLISECONDS: answers each request so late, on the listening socket that is its standard input; -1: never;
 * -2: resets the connection at the first bytes.
 * One request a connection. As all wait equally long, those that are due are always the oldest: a ring will do.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, RING = 1 << 16, RESET = -2 };

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

static struct { int fd; long due; } ring[RING];
static unsigned oldest, newest;

static long milliseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void accept_all(int epoll) {
    for (int fd; (fd = accept4(0, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

/* Without a delay to wait for, a connection stays until its client has enough. */
static void hear(int fd, int delay) {
    char request[8192];
    ssize_t size = recv(fd, request, sizeof request, 0);
    if (delay == RESET) {
        struct linger at_once = {.l_onoff = 1};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        close(fd);
    } else if (size <= 0) {
        if (delay < 0) close(fd); /* else it is in the ring, or a client gave up before it asked */
    } else if (delay >= 0 && newest - oldest < RING) {
        ring[newest % RING].fd = fd;
        ring[newest++ % RING].due = milliseconds() + delay;
    }
}

static int answer_those_due(void) {
    long now = milliseconds();
    for (; oldest != newest; oldest++) {
        int fd = ring[oldest % RING].fd;
        if (ring[oldest % RING].due > now) return ring[oldest % RING].due - now;
        send(fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
        close(fd);
    }
    return -1;
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS], listener = {.events = EPOLLIN, .data.fd = 0};
    int epoll = epoll_create1(0), delay = argc > 1 ? atoi(argv[1]) : -1;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &listener);
    for (int wait = -1;; wait = answer_those_due()) {
        int count = epoll_wait(epoll, events, EVENTS, wait);
        for (int n = 0; n < count; n++) {
            if (events[n].data.fd == 0) accept_all(epoll);
            else hear(events[n].data.fd, delay);
        }
    }
}

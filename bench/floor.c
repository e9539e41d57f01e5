/*
 * floor CONCURRENCY KEEP FILE: the least that a probe can cost. HEAD for each http://A.B.C.D:PORT/PATH of a file, on one
 * thread with epoll: connect, send, one read, reset. It prints "STATUS URL"; status 0 is no answer. KEEP 1: a
 * connection serves the next URL too. No names, no TLS, no timeouts, no errors told apart: a yardstick, not a tool.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256 };

struct slot {
    int fd, sent;
    char url[256];
};

static FILE *urls;
static int epoll, keep, active;

static int next_url(struct slot *slot) {
    if (!fgets(slot->url, sizeof slot->url, urls)) return 0;
    slot->url[strcspn(slot->url, "\n")] = 0;
    slot->sent = 0;
    return 1;
}

static void dial(struct slot *slot) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct linger reset = {1, 0};
    char host[64];
    int port = 80;
    sscanf(slot->url, "http://%63[^:/]:%d", host, &port);
    inet_pton(AF_INET, host, &to.sin_addr);
    to.sin_port = htons(port);
    slot->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(slot->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    connect(slot->fd, (struct sockaddr *)&to, sizeof to);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = slot};
    epoll_ctl(epoll, EPOLL_CTL_ADD, slot->fd, &event);
}

static void ask(struct slot *slot) {
    char request[512], *host = slot->url + 7, *path = strchr(host, '/');
    int size = snprintf(request, sizeof request, "HEAD %s HTTP/1.1\r\nHost: %.*s\r\n\r\n", path ? path : "/",
                        (int)(path ? path - host : (int)strlen(host)), host);
    slot->sent = send(slot->fd, request, size, MSG_NOSIGNAL) == size;
}

static void finish(struct slot *slot, int status) {
    printf("%d %s\n", status, slot->url);
    if (keep && status && next_url(slot)) {
        ask(slot);
        return;
    }
    close(slot->fd);
    if (next_url(slot)) dial(slot);
    else active--;
}

static void wake(struct slot *slot, unsigned events) {
    char head[4096];
    if (!slot->sent && events & EPOLLOUT && !(events & EPOLLERR)) ask(slot);
    if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP))) return;
    ssize_t size = recv(slot->fd, head, sizeof head - 1, 0);
    head[size > 0 ? size : 0] = 0;
    finish(slot, size > 12 ? atoi(head + 9) : 0);
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS];
    if (argc != 4 || !(urls = fopen(argv[3], "r"))) return 2;
    epoll = epoll_create1(0);
    keep = atoi(argv[2]);
    struct slot *slots = calloc(atoi(argv[1]), sizeof *slots);
    for (int n = 0; n < atoi(argv[1]) && next_url(slots + n); n++, active++) dial(slots + n);
    while (active) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int n = 0; n < count; n++) wake(events[n].data.ptr, events[n].events);
    }
    return 0;
}

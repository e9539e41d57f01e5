/*
 * measure CORE SECONDS OUT ERR COMMAND...
 *
 * Runs a command and prints what it and its children cost: wall s, user s, system s, peak RSS in KiB, wait status.
 * It is no Python, because a child's peak RSS starts at that of the process it was forked from.
 * CORE -1: do not pin. After SECONDS it is killed, and so it is when the bench dies.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pid_t child;

static void stop(int signal) {
    (void)signal;
    kill(-child, SIGKILL);
}

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static double seconds(struct timeval time) { return time.tv_sec + time.tv_usec / 1e6; }

static void redirect(const char *path, int to, int flags) {
    int fd = open(path, flags, 0644);
    if (fd < 0 || dup2(fd, to) < 0) _exit(126);
    close(fd);
}

static void become(char **argv) {
    int core = atoi(argv[1]);
    cpu_set_t cores;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CPU_ZERO(&cores);
    CPU_SET(core < 0 ? 0 : core, &cores);
    if (core >= 0 && sched_setaffinity(0, sizeof cores, &cores)) _exit(126);
    setpgid(0, 0);
    redirect("/dev/null", 0, O_RDONLY);
    redirect(argv[3], 1, O_WRONLY | O_CREAT | O_TRUNC);
    redirect(argv[4], 2, O_WRONLY | O_CREAT | O_TRUNC);
    execvp(argv[5], argv + 5);
    _exit(127);
}

int main(int argc, char **argv) {
    struct rusage used;
    int status;
    if (argc < 6) return 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    double started = now(CLOCK_REALTIME), begin = now(CLOCK_MONOTONIC);
    child = fork();
    if (child == 0) become(argv);
    setpgid(child, child);
    signal(SIGALRM, stop);
    signal(SIGTERM, stop);
    alarm(atoi(argv[2]));
    if (wait4(child, &status, 0, &used) != child) return 1;
    double wall = now(CLOCK_MONOTONIC) - begin;
    kill(-child, SIGKILL); /* what it may have left behind */
    printf("%.6f %.6f %.6f %.6f %ld %d\n", started, wall, seconds(used.ru_utime), seconds(used.ru_stime),
           used.ru_maxrss, status);
    return 0;
}

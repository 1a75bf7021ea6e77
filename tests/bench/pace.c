/* Makes milterload send at a fixed rate and time whole connections; linked with -Wl,--wrap=connect,--wrap=close.
 *
 * MILTERLOAD_RATE: connections a second, each waiting for its turn; without it nothing waits.  With a message per
 * connection and connections enough, messages then arrive whether or not those before are through, as mail does.
 *
 * MILTERLOAD_TIMES: a file to which the milliseconds from connect() to close() go at exit, as JSON.  Other than the
 * latency of milterload they have in them the time until the filter accepts and negotiates.  MILTERLOAD_CHAIN: of how
 * many filters the chain is, one connection each, whose times are added up (1).
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

int __real_connect(int, const struct sockaddr *, socklen_t);
int __real_close(int);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double *times;
static size_t count, room;
static __thread double began; /* of this thread's connection; 0 if there is none */
static __thread double spent; /* on this message, by the filters before */
static __thread int links;    /* of the chain that are done */
static __thread int waited;   /* for the turn of the next message */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void wait_for_turn(void)
{
    static double next;
    const char *rate = getenv("MILTERLOAD_RATE");
    waited = 1;
    if (!rate)
        return;
    pthread_mutex_lock(&lock);
    double turn = next > now() ? next : now();
    next = turn + 1 / atof(rate);
    pthread_mutex_unlock(&lock);
    struct timespec t = {(time_t)turn, (long)((turn - (time_t)turn) * 1e9)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    if (!waited)
        wait_for_turn();
    if (!began) /* else it is tried again: the backlog was full */
        began = now();
    return __real_connect(fd, address, size);
}

int __wrap_close(int fd)
{
    struct stat status;
    int is_socket = !fstat(fd, &status) && S_ISSOCK(status.st_mode), result = __real_close(fd);
    if (!is_socket)
        return result;
    const char *chain = getenv("MILTERLOAD_CHAIN");
    spent += began ? now() - began : 0;
    began = 0;
    if (++links < (chain ? atoi(chain) : 1))
        return result;
    pthread_mutex_lock(&lock);
    if (count == room) {
        room = room ? 2 * room : 4096;
        times = realloc(times, room * sizeof *times);
        if (!times)
            abort();
    }
    times[count++] = spent;
    pthread_mutex_unlock(&lock);
    spent = links = 0;
    wait_for_turn(); /* here and not in connect(), which milterload times */
    return result;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void __attribute__((destructor)) write_times(void)
{
    const char *path = getenv("MILTERLOAD_TIMES");
    FILE *file = path && count ? fopen(path, "w") : NULL;
    if (!file)
        return;
    qsort(times, count, sizeof *times, ascending);
    fprintf(file, "{\"whole_p50\": %.3f, \"whole_p99\": %.3f, \"whole_max\": %.3f}\n", times[(count - 1) / 2] * 1e3,
            times[(count - 1) * 99 / 100] * 1e3, times[count - 1] * 1e3);
    fclose(file);
}

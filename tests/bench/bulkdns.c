/* bulkdns - a name server for the benchmark, in front of another one.  UDP only.
 *
 * usage: bulkdns LISTEN_IP UPSTREAM_IP KEY-RECORD      (both on port 53)
 *
 *   gNNNNNN.com       a million domains made on the fly: SPF, DMARC, one DKIM key for all (selector s2024), A, MX, PTR.
 *                     Their address is 10.x.y.z with the number in x.y.z.
 *   *.silent.test     never answered
 *   *.slow.test       answered after SLOW seconds; TXT is an SPF record that leads on to a longer name there
 *   anything else     asked of the upstream
 *
 * build: gcc -O2 -Wall -o bulkdns bulkdns.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define SLOW 1.0
#define QUEUE 65536
enum { A = 1, PTR = 12, MX = 15, TXT = 16 };
enum { NOERROR = 0, NXDOMAIN = 3 };

struct late { /* an answer that waits for its time */
    double due;
    struct sockaddr_in to;
    int length;
    unsigned char wire[1232];
};
static struct late *queue;
static unsigned first, end;
static struct { struct sockaddr_in from; unsigned char id[2]; } asked[65536]; /* of the upstream, by our id */
static const char *key_record;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* The name of the question in lower case and with dots; its end in the packet, or 0 if it is none. */
static int question(const unsigned char *wire, int length, char *name)
{
    int at = 12, n = 0;
    while (at < length && wire[at]) {
        int label = wire[at++];
        if (label > 63 || at + label >= length || n + label + 1 > 254)
            return 0;
        if (n)
            name[n++] = '.';
        for (int i = 0; i < label; i++)
            name[n++] = tolower(wire[at++]);
    }
    name[n] = 0;
    return at + 5 <= length ? at + 1 : 0;
}

static int ends(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n >= s && !strcmp(name + n - s, suffix);
}

static int put_name(unsigned char *out, const char *name)
{
    int n = 0;
    while (*name) {
        const char *dot = strchrnul(name, '.');
        int label = dot - name;
        out[n++] = label;
        memcpy(out + n, name, label);
        n += label;
        name = *dot ? dot + 1 : dot;
    }
    out[n++] = 0;
    return n;
}

static int put_text(unsigned char *out, const char *text)
{
    int n = 0, left = strlen(text);
    while (left > 0) {
        int part = left > 255 ? 255 : left;
        out[n++] = part;
        memcpy(out + n, text, part);
        n += part, text += part, left -= part;
    }
    return n;
}

/* The data of the record of that type at a name below gNNNNNN.com (`below` is what stands in front of it, with its dot);
 * its length, 0 if there is no such record, -1 if there is no such name. */
static int domain_data(unsigned char *out, unsigned number, const char *domain, const char *below, int type)
{
    char text[600];
    if (!strcmp(below, "s2024._domainkey."))
        return type == TXT ? put_text(out, key_record) : 0;
    if (!strcmp(below, "_dmarc.")) {
        snprintf(text, sizeof text, "v=DMARC1; p=reject; rua=mailto:dmarc@%s; adkim=r; aspf=r", domain);
        return type == TXT ? put_text(out, text) : 0;
    }
    if (*below && strcmp(below, "mail.") && strcmp(below, "www."))
        return strcmp(below, "_domainkey.") ? -1 : 0;
    if (type == A) {
        unsigned address = htonl(10u << 24 | number);
        memcpy(out, &address, 4);
        return 4;
    }
    if (*below)
        return 0;
    if (type == MX) {
        snprintf(text, sizeof text, "mail.%s", domain);
        out[0] = 0, out[1] = 10;
        return 2 + put_name(out + 2, text);
    }
    if (type == TXT) {
        snprintf(text, sizeof text, "v=spf1 include:_spf.bm-esp%02u.net ip4:10.%u.%u.%u -all", number % 20,
                 number >> 16, number >> 8 & 255, number & 255);
        return put_text(out, text);
    }
    return 0;
}

/* Make the answer in place: header and question are there, `at` is behind the name.  Returns its length. */
static int answer(unsigned char *wire, int at, int type, int edns, const unsigned char *data, int length)
{
    int n = at + 4;
    wire[2] = 0x84 | (wire[2] & 1), wire[3] = 0x80 | (length < 0 ? NXDOMAIN : NOERROR);
    memcpy(wire + 4, "\0\1\0\0\0\0\0", 8);
    wire[11] = edns;
    if (length > 0) {
        const unsigned char head[] = {0xc0, 12, 0, type, 0, 1, 0, 0, 0x0e, 0x10, length >> 8, length};
        wire[7] = 1;
        memcpy(wire + n, head, sizeof head);
        memcpy(wire + n + sizeof head, data, length);
        n += sizeof head + length;
    } else { /* RFC 2308: SOA of the root, kept for a minute */
        static const unsigned char soa[] = "\0\0\6\0\1\0\0\0\x3c\0\x16" "\0\0" "\0\0\0\1\0\0\x0e\x10\0\0\2\x58\0\1\x51\x80\0\0\0\x3c";
        wire[9] = 1;
        memcpy(wire + n, soa, sizeof soa - 1);
        n += sizeof soa - 1;
    }
    if (edns) {
        memcpy(wire + n, "\0\0\x29\4\xd0\0\0\0\0\0\0", 11);
        n += 11;
    }
    return n;
}

/* Answer a query of ours in place: its new length, 0 for silence, -1 if it is one for the upstream. */
static int ours(unsigned char *wire, int length, int *slow)
{
    char name[256], text[600];
    unsigned char data[800];
    int at = question(wire, length, name), type, found = -1;
    unsigned number, x, y, z;
    if (!at)
        return 0;
    type = wire[at] << 8 | wire[at + 1];
    *slow = ends(name, ".slow.test");
    if (ends(name, ".silent.test"))
        return 0;
    if (*slow) {
        snprintf(text, sizeof text, "v=spf1 include:x%s -all", name);
        found = type == TXT ? put_text(data, text) : 0;
    } else if (ends(name, ".10.in-addr.arpa")) {
        if (sscanf(name, "%u.%u.%u.10.", &z, &y, &x) == 3) {
            snprintf(text, sizeof text, "mail.g%06u.com", x << 16 | y << 8 | z);
            found = type == PTR ? put_name(data, text) : 0;
        }
    } else {
        size_t n = strlen(name);
        const char *domain = n >= 11 ? name + n - 11 : "";
        int end_ = 0;
        if (sscanf(domain, "g%6u.com%n", &number, &end_) != 1 || end_ != 11 || (n > 11 && domain[-1] != '.'))
            return -1;
        snprintf(text, sizeof text, "%.*s", (int)(n - 11), name);
        found = domain_data(data, number, domain, text, type);
    }
    return answer(wire, at, type, wire[11] != 0, data, found);
}

int main(int count, char **args)
{
    if (count != 4) {
        fprintf(stderr, "usage: bulkdns LISTEN_IP UPSTREAM_IP KEY-RECORD\n");
        return 2;
    }
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(53)}, upstream = here;
    here.sin_addr.s_addr = inet_addr(args[1]), upstream.sin_addr.s_addr = inet_addr(args[2]), key_record = args[3];
    int in = socket(AF_INET, SOCK_DGRAM, 0), up = socket(AF_INET, SOCK_DGRAM, 0), large = 8 << 20;
    setsockopt(in, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
    setsockopt(up, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
    queue = calloc(QUEUE, sizeof *queue);
    if (!queue || bind(in, (void *)&here, sizeof here) || connect(up, (void *)&upstream, sizeof upstream)) {
        perror("bulkdns");
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    unsigned id = 0;
    for (;;) {
        struct pollfd ready[] = {{in, POLLIN, 0}, {up, POLLIN, 0}};
        double wait = first == end ? 1e3 : (queue[first % QUEUE].due - now()) * 1e3;
        poll(ready, 2, wait < 0 ? 0 : (int)wait + 1);
        while (first != end && queue[first % QUEUE].due <= now()) {
            struct late *late = &queue[first++ % QUEUE];
            sendto(in, late->wire, late->length, 0, (void *)&late->to, sizeof late->to);
        }
        for (;;) {
            unsigned char wire[4096];
            struct sockaddr_in from;
            socklen_t size = sizeof from;
            int length = recvfrom(in, wire, 1232, MSG_DONTWAIT, (void *)&from, &size), slow = 0;
            if (length < 17)
                break;
            int n = ours(wire, length, &slow);
            if (n < 0) {
                id = (id + 1) & 65535;
                asked[id].from = from;
                memcpy(asked[id].id, wire, 2);
                wire[0] = id >> 8, wire[1] = id;
                send(up, wire, length, 0);
            } else if (n > 0 && !slow) {
                sendto(in, wire, n, 0, (void *)&from, size);
            } else if (n > 0 && end - first < QUEUE && n <= (int)sizeof queue->wire) {
                struct late *late = &queue[end++ % QUEUE];
                late->due = now() + SLOW, late->to = from, late->length = n;
                memcpy(late->wire, wire, n);
            }
        }
        for (;;) {
            unsigned char wire[4096];
            int length = recv(up, wire, sizeof wire, MSG_DONTWAIT);
            if (length < 12)
                break;
            unsigned ours_ = wire[0] << 8 | wire[1];
            memcpy(wire, asked[ours_].id, 2);
            sendto(in, wire, length, 0, (void *)&asked[ours_].from, sizeof asked[ours_].from);
        }
    }
}

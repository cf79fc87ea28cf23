// A program that makes connections, for a bench of firewalls that tell programs apart.
//
//     connect listen ADDRESS:PORT COUNT            accepts and closes at COUNT ports from PORT on, until it is killed
//     connect out ADDRESS:PORT COUNT SECONDS       one connection after the other; each goes to the next of the ports
//     connect labels COUNT                         sockets, and connections on loopback, COUNT of each
//     connect pace FROM COUNT TO:PORT COUNT COUNT RATE SECONDS
//                                                  RATE connections a second: by turns from each of the addresses from FROM on,
//                                                  to each of those from TO on, at each of the ports from PORT on
//
// `out` and `pace` say how many seconds it took, then how long each connect() was, in ns, a number a line. A connection is closed with
// a reset, so nothing waits in TIME_WAIT. One that is not there after a while, or is refused, ends it with status 1. `labels` says
// how long socket() and close() took together, and connect(), in ns, the median of each.

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 65535
#define PORTS_MAX 64
#define CONNECTIONS_MAX 4000000
#define PATIENCE_S 5
#define PAUSE_NS 1000000 // of `pace`, when it is ahead

static const struct linger reset = {1, 0};
static uint32_t took[CONNECTIONS_MAX];

static uint64_t now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000ull + at.tv_nsec;
}

static void need(int fine, const char *what)
{
	if (fine)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in read_address(char *text)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	char *colon = strchr(text, ':');

	need(colon != NULL, text);
	*colon = 0;
	need(inet_pton(AF_INET, text, &address.sin_addr) == 1, text);
	address.sin_port = htons(atoi(colon + 1));
	return address;
}

static int make_listener(struct sockaddr_in *address)
{
	int one = 1, made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	need(made >= 0, "socket");
	setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	need(bind(made, (struct sockaddr *)address, sizeof(*address)) == 0, "bind");
	need(listen(made, BACKLOG) == 0, "listen");
	return made;
}

static void take_all(int listener)
{
	int taken;

	while ((taken = accept(listener, NULL, NULL)) >= 0)
		close(taken); // no reset: the other end may not have come back from connect() yet
}

static void serve(struct sockaddr_in address, int count)
{
	struct pollfd waiting[PORTS_MAX];

	for (int at = 0; at < count; at++) {
		waiting[at] = (struct pollfd){.fd = make_listener(&address), .events = POLLIN};
		address.sin_port = htons(ntohs(address.sin_port) + 1);
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		need(poll(waiting, count, -1) >= 0, "poll");
		for (int at = 0; at < count; at++)
			if (waiting[at].revents)
				take_all(waiting[at].fd);
	}
}

// From anywhere where `from` is NULL.
static uint64_t connect_once(struct sockaddr_in *from, struct sockaddr_in *address)
{
	const struct timeval patience = {PATIENCE_S, 0};
	uint64_t began;
	int one = 1, made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	need(made >= 0, "socket");
	if (from) {
		setsockopt(made, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		need(bind(made, (struct sockaddr *)from, sizeof(*from)) == 0, "bind");
	}
	setsockopt(made, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	began = now();
	need(connect(made, (struct sockaddr *)address, sizeof(*address)) == 0, "connect");
	began = now() - began;
	close(made);
	return began;
}

static void print_all(uint64_t began, int made)
{
	printf("%.6f\n", (now() - began) / 1e9);
	for (int at = 0; at < made; at++)
		printf("%u\n", took[at]);
}

static int go_out(struct sockaddr_in address, int count, double seconds)
{
	uint16_t first = ntohs(address.sin_port);
	uint64_t began, until;
	int made = 0;

	connect_once(NULL, &address); // who is not known yet becomes so, and the other end's hardware address too
	began = now();
	until = began + (uint64_t)(seconds * 1e9);
	while (made < CONNECTIONS_MAX && now() < until) {
		address.sin_port = htons(first + made % count);
		took[made++] = connect_once(NULL, &address);
	}
	print_all(began, made);
	return 0;
}

struct ends {
	struct sockaddr_in from, to;
	uint32_t sources, targets, ports;
};

static uint64_t connect_number(const struct ends *ends, uint32_t number)
{
	struct sockaddr_in from = ends->from, to = ends->to;

	from.sin_addr.s_addr = htonl(ntohl(from.sin_addr.s_addr) + number % ends->sources);
	to.sin_addr.s_addr = htonl(ntohl(to.sin_addr.s_addr) + number % ends->targets);
	to.sin_port = htons(ntohs(to.sin_port) + number / (ends->sources * ends->targets) % ends->ports);
	return connect_once(&from, &to);
}

static int keep_pace(const struct ends *ends, double rate, double seconds)
{
	const struct timespec pause = {0, PAUSE_NS};
	uint64_t began = now();
	int made = 0, wanted = seconds * rate;

	while (made < wanted && made < CONNECTIONS_MAX && now() - began < seconds * 1e9) {
		if (made > (now() - began) / 1e9 * rate)
			nanosleep(&pause, NULL);
		else {
			took[made] = connect_number(ends, made);
			made++;
		}
	}
	print_all(began, made);
	return 0;
}

static int by_size(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return (a > b) - (a < b);
}

static void print_median(int count)
{
	qsort(took, count, sizeof(*took), by_size);
	printf("%u\n", took[count / 2]);
}

static int cost_of_labels(int count)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	int listener = make_listener(&address);
	uint64_t began;

	need(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname");
	for (int at = 0; at < count; at++) {
		began = now();
		close(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
		took[at] = now() - began;
	}
	print_median(count);
	for (int at = 0; at < count; at++) {
		took[at] = connect_once(NULL, &address);
		take_all(listener);
	}
	print_median(count);
	return 0;
}

static uint32_t read_count(const char *text)
{
	int read = atoi(text);

	need(read > 0, text);
	return read;
}

static struct ends read_ends(char **words)
{
	struct ends ends = {.from.sin_family = AF_INET};

	need(inet_pton(AF_INET, words[0], &ends.from.sin_addr) == 1, words[0]);
	ends.sources = read_count(words[1]);
	ends.to = read_address(words[2]);
	ends.targets = read_count(words[3]);
	ends.ports = read_count(words[4]);
	return ends;
}

int main(int count, char **words)
{
	struct ends ends;

	if (count == 4 && !strcmp(words[1], "listen") && atoi(words[3]) <= PORTS_MAX)
		serve(read_address(words[2]), atoi(words[3]));
	if (count == 5 && !strcmp(words[1], "out"))
		return go_out(read_address(words[2]), atoi(words[3]), atof(words[4]));
	if (count == 3 && !strcmp(words[1], "labels") && atoi(words[2]) <= CONNECTIONS_MAX)
		return cost_of_labels(atoi(words[2]));
	if (count == 9 && !strcmp(words[1], "pace")) {
		ends = read_ends(words + 2);
		return keep_pace(&ends, atof(words[7]), atof(words[8]));
	}
	fprintf(stderr, "usage: connect listen|out|labels|pace …\n");
	return 2;
}

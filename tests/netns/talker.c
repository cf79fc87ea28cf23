// Talks in every way there is, and listens so, for the tests of rules for programs. It says what became of each attempt:
// `yes` for an answer, `refused` for an error, `silent` for neither. Copies of it differ in nothing but the file.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sockaddr_storage other;
static socklen_t other_size;
static int family, port, kept = -1;

static void aim(const char *address, const char *number)
{
	struct sockaddr_in *in4 = (void *)&other;
	struct sockaddr_in6 *in6 = (void *)&other;

	port = atoi(number);
	family = strchr(address, ':') ? AF_INET6 : AF_INET;
	if (family == AF_INET6) {
		in6->sin6_family = family, in6->sin6_port = htons(port), other_size = sizeof(*in6);
		inet_pton(family, address, &in6->sin6_addr);
	} else {
		in4->sin_family = family, in4->sin_port = htons(port), other_size = sizeof(*in4);
		inet_pton(family, address, &in4->sin_addr);
	}
}

static const char *failed(void)
{
	return errno == ECONNREFUSED || errno == EPERM || errno == EACCES || errno == EHOSTUNREACH || errno == ENETUNREACH
		? "refused" : errno == EAGAIN || errno == EINPROGRESS || errno == ETIMEDOUT ? "silent" : strerror(errno);
}

static int opened(int type, int protocol)
{
	int one = 1, sock = socket(family, type, protocol);
	struct timeval wait = {1, 200000};
	const char *from = getenv("FROM");

	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	if (from && type == SOCK_DGRAM && !protocol) {
		struct sockaddr_storage here = {.ss_family = family};

		((struct sockaddr_in6 *)&here)->sin6_port = htons(atoi(from));
		setsockopt(sock, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
		bind(sock, (void *)&here, other_size);
	}
	// So that a socket without a fixed other end hears of a refusal, too.
	setsockopt(sock, family == AF_INET ? SOL_IP : SOL_IPV6, family == AF_INET ? IP_RECVERR : IPV6_RECVERR, &one, sizeof(one));
	return sock;
}

static const char *heard(int sock)
{
	char got[256];

	return recv(sock, got, sizeof(got), 0) > 0 ? "yes" : failed();
}

static const char *tcp(int fast)
{
	int sock = opened(SOCK_STREAM, 0);
	const char *found = "refused";

	if (fast ? sendto(sock, "hello", 5, MSG_FASTOPEN, (void *)&other, other_size) < 0
		 : connect(sock, (void *)&other, other_size) || send(sock, "hello", 5, MSG_NOSIGNAL) < 0)
		found = failed();
	else
		found = heard(sock);
	close(sock);
	return found;
}

static const char *udp(int sock, int connected)
{
	int ready = !connected || !connect(sock, (void *)&other, other_size), error;
	socklen_t size = sizeof(error);

	// What became of an earlier datagram is no answer to this one.
	getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &size);
	if (!ready || sendto(sock, "hello", 5, 0, connected ? 0 : (void *)&other, connected ? 0 : other_size) < 0)
		return failed();
	return heard(sock);
}

// Of two sockets that share a port, one sends and is closed; the answer comes to the other one.
static const char *udp_closed(void)
{
	int sends = opened(SOCK_DGRAM, 0), hears = opened(SOCK_DGRAM, 0);

	if (sendto(sends, "hello", 5, 0, (void *)&other, other_size) < 0)
		return failed();
	close(sends);
	return heard(hears);
}

// An echo request is the same in both families, but for its type and checksum; the kernel writes the latter for IPv6.
static const char *ping(int type)
{
	unsigned char packet[8] = {family == AF_INET ? 8 : 128, 0, 0, 0, getpid() >> 8, getpid(), 0, 1}, got[256];
	int sock = opened(type, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6), head, size;
	unsigned sum = 0;

	if (sock < 0)
		return failed();
	for (int at = 0; at < 8; at += 2)
		sum += packet[at] << 8 | packet[at + 1];
	sum = ~((sum & 0xffff) + (sum >> 16));
	if (family == AF_INET)
		packet[2] = sum >> 8, packet[3] = sum;
	((struct sockaddr_in6 *)&other)->sin6_port = 0;
	if (sendto(sock, packet, 8, 0, (void *)&other, other_size) < 0)
		return failed();
	while ((size = recv(sock, got, sizeof(got), 0)) > 0 || (type == SOCK_RAW && errno == ECONNREFUSED)) {
		head = type == SOCK_RAW && family == AF_INET ? 20 : 0;
		// A raw socket hears what others are told, too.
		if (size > head && got[head] == (family == AF_INET ? 0 : 129) && (type != SOCK_RAW || !memcmp(got + head + 4, packet + 4, 2)))
			return "yes";
	}
	return failed();
}

// UDP by hand: the answer is given to every raw socket of the protocol, with whatever others are told.
static const char *raw_udp(void)
{
	unsigned short packet[7] = {htons(20000 + getpid() % 10000), htons(port), htons(14), 0}, got[128];
	int sock = opened(SOCK_RAW, IPPROTO_UDP), at = 6, head = family == AF_INET ? 10 : 0, size;

	memcpy(packet + 4, "hello!", 6);
	if (family == AF_INET6)
		setsockopt(sock, SOL_IPV6, IPV6_CHECKSUM, &at, sizeof(at));
	((struct sockaddr_in6 *)&other)->sin6_port = 0;
	if (sendto(sock, packet, 14, 0, (void *)&other, other_size) < 0)
		return failed();
	while ((size = recv(sock, got, sizeof(got), 0)) > 0 || errno == ECONNREFUSED)
		if (size > 0 && got[head + 1] == packet[0])
			return "yes";
	return failed();
}

static const char *talk(const char *how)
{
	if (!strcmp(how, "tcp"))
		return tcp(0);
	if (!strcmp(how, "tcp-fast"))
		return tcp(1);
	if (!strcmp(how, "udp"))
		return udp(opened(SOCK_DGRAM, 0), 0);
	if (!strcmp(how, "udp-kept"))
		return udp(kept, 0);
	if (!strcmp(how, "udp-connected"))
		return udp(opened(SOCK_DGRAM, 0), 1);
	if (!strcmp(how, "udp-closed"))
		return udp_closed();
	if (!strcmp(how, "ping"))
		return ping(SOCK_DGRAM);
	if (!strcmp(how, "raw-ping"))
		return ping(SOCK_RAW);
	if (!strcmp(how, "raw-udp"))
		return raw_udp();
	return "?";
}

// One word a line from the standard input, each answered; a socket is kept from the beginning.
static void converse(void)
{
	char line[64];

	kept = opened(SOCK_DGRAM, 0);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		puts(talk(line));
		fflush(stdout);
	}
}

static void listening(const char *number, int *stream, int *packets)
{
	struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(number))};
	int one = 1;

	*stream = socket(AF_INET6, SOCK_STREAM, 0);
	*packets = socket(AF_INET6, SOCK_DGRAM, 0);
	setsockopt(*stream, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(*stream, (void *)&here, sizeof(here)) || bind(*packets, (void *)&here, sizeof(here)) || listen(*stream, 64))
		exit(3);
}

static void answer_stream(int connection)
{
	char got[256];

	if (recv(connection, got, sizeof(got), 0) > 0)
		send(connection, "yes", 3, MSG_NOSIGNAL);
	close(connection);
}

static void serve(int stream, int packets)
{
	struct pollfd both[2] = {{stream, POLLIN}, {packets, POLLIN}};
	struct sockaddr_storage peer;
	char got[256];

	puts("ready");
	fflush(stdout);
	while (poll(both, 2, -1) > 0) {
		socklen_t size = sizeof(peer);

		if (both[0].revents)
			answer_stream(accept(stream, 0, 0));
		if (both[1].revents && recvfrom(packets, got, sizeof(got), 0, (void *)&peer, &size) > 0)
			sendto(packets, "yes", 3, 0, (void *)&peer, size);
	}
}

static void pass(int stream, int packets)
{
	char space[CMSG_SPACE(2 * sizeof(int))] = {0}, letter = 'x';
	struct iovec data = {&letter, 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	int both[2] = {stream, packets};

	head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(both));
	memcpy(CMSG_DATA(head), both, sizeof(both));
	sendmsg(0, &message, 0);
}

static void take(void)
{
	char space[CMSG_SPACE(2 * sizeof(int))], letter;
	struct iovec data = {&letter, 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
	int both[2];

	if (recvmsg(0, &message, 0) < 1 || !CMSG_FIRSTHDR(&message))
		exit(4);
	memcpy(both, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(both));
	serve(both[0], both[1]);
}

static void inetd(int stream, const char *program)
{
	puts("ready");
	fflush(stdout);
	for (int connection; (connection = accept(stream, 0, 0)) >= 0; close(connection)) {
		if (fork())
			continue;
		dup2(connection, 0);
		execl(program, program, "answer", (char *)0);
		_exit(127);
	}
}

// The sockets as 3 and 4, as service managers give them (sd_listen_fds(3)), for another program.
static void activate(int stream, int packets, const char *program)
{
	char number[16];

	stream = fcntl(stream, F_DUPFD, 10), packets = fcntl(packets, F_DUPFD, 10);
	dup2(stream, 3), dup2(packets, 4);
	close(stream), close(packets);
	snprintf(number, sizeof(number), "%d", getpid());
	setenv("LISTEN_PID", number, 1), setenv("LISTEN_FDS", "2", 1);
	execl(program, program, "activated", (char *)0);
	exit(127);
}

int main(int count, char **words)
{
	const char *how = count > 1 ? words[1] : "";
	int stream, packets;

	signal(SIGCHLD, SIG_IGN);
	if (!strcmp(how, "answer"))
		return answer_stream(0), 0;
	if (!strcmp(how, "taken"))
		return take(), 0;
	if (!strcmp(how, "activated")) {
		if (atoi(getenv("LISTEN_PID")) != getpid())
			return 5;
		return serve(3, 4), 0;
	}
	if (!strcmp(how, "serve") || !strcmp(how, "forked") || !strcmp(how, "passed") || !strcmp(how, "inetd") ||
	    !strcmp(how, "activate")) {
		listening(words[2], &stream, &packets);
		if (!strcmp(how, "forked") && fork())
			return 0;
		if (!strcmp(how, "passed"))
			pass(stream, packets);
		else if (!strcmp(how, "inetd"))
			inetd(stream, words[3]);
		else if (!strcmp(how, "activate"))
			activate(stream, packets, words[3]);
		else
			serve(stream, packets);
		return 0;
	}
	if (count < 4)
		return 2;
	aim(words[2], words[3]);
	if (!strcmp(how, "converse"))
		return converse(), 0;
	if (!strcmp(how, "daemon")) {
		if (fork())
			return 0;
		setsid();
		how = "tcp";
	}
	puts(talk(how));
	return 0;
}

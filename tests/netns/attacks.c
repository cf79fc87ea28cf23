// Attacks on rules for programs. Each ends with 0 where it got an answer from the other end, 1 where it did not, and 3 where
// the kernel refused the attack itself. Copies of this program differ in nothing but the file: one is allowed, one is not.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REACHED, STOPPED, REFUSED = 3 };
enum { WAIT_MS = 1500, STACK = 1 << 16 };

static struct sockaddr_storage other;
static socklen_t other_size;
static int family;

// What somebody else writes into a process that waits for it. The same program has it at the same place.
static volatile struct { int go; char address[64]; } orders;

static int refused(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return REFUSED;
}

static void aim(const char *address, const char *port)
{
	struct sockaddr_in *in4 = (void *)&other;
	struct sockaddr_in6 *in6 = (void *)&other;

	family = strchr(address, ':') ? AF_INET6 : AF_INET;
	other.ss_family = family;
	if (family == AF_INET6) {
		in6->sin6_port = htons(atoi(port)), other_size = sizeof(*in6);
		inet_pton(family, address, &in6->sin6_addr);
	} else {
		in4->sin_port = htons(atoi(port)), other_size = sizeof(*in4);
		inet_pton(family, address, &in4->sin_addr);
	}
}

static int ready(int sock, int event)
{
	struct pollfd one = {sock, event, 0};

	return poll(&one, 1, WAIT_MS) == 1 && !(one.revents & (POLLERR | POLLHUP));
}

// Whether the other end answers on a socket that is connected, or about to be.
static int answered(int sock)
{
	char got[256];

	if (!ready(sock, POLLOUT) || send(sock, "hello\n", 6, MSG_NOSIGNAL) < 0 || !ready(sock, POLLIN))
		return STOPPED;
	return recv(sock, got, sizeof(got), 0) > 0 ? REACHED : STOPPED;
}

static int connected(int sock)
{
	fcntl(sock, F_SETFL, fcntl(sock, F_GETFL) | O_NONBLOCK);
	if (connect(sock, (void *)&other, other_size) && errno != EINPROGRESS)
		return STOPPED;
	return answered(sock);
}

static int fetch(void)
{
	return connected(socket(family, SOCK_STREAM, 0));
}

// A datagram of this size, on this socket.
static int datagram(int sock, int size)
{
	char content[65000] = "hello";
	struct pollfd one = {sock, POLLIN, 0};

	if (sendto(sock, content, size, 0, (void *)&other, other_size) != size)
		return STOPPED;
	return poll(&one, 1, WAIT_MS) == 1 && recv(sock, content, sizeof(content), 0) > 0 ? REACHED : STOPPED;
}

static int datagram_from(int port)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port)};
	int sock = socket(AF_INET, SOCK_DGRAM, 0);

	return bind(sock, (void *)&own, sizeof(own)) ? refused("bind") : datagram(sock, 5);
}

static int status_of(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : REFUSED;
}

static void hand_over(int by, int sock)
{
	char space[CMSG_SPACE(sizeof(int))] = {}, byte = 0;
	struct iovec data = {&byte, 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &sock, sizeof(int));
	sendmsg(by, &message, 0);
}

static int taken(int by)
{
	char space[CMSG_SPACE(sizeof(int))], byte;
	struct iovec data = {&byte, 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
	int sock = -1;

	if (recvmsg(by, &message, 0) == 1 && CMSG_FIRSTHDR(&message))
		memcpy(&sock, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return sock;
}

// Gives a socket to another program, which does with it what `how` says.
static int give(int sock, char *program, char *how, char **where)
{
	int ends[2];
	char number[16];
	pid_t pid;

	socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
	snprintf(number, sizeof(number), "%d", ends[1]);
	pid = fork();
	if (!pid) {
		close(sock), close(ends[0]);
		execl(program, program, how, where[0], where[1], number, NULL);
		_exit(REFUSED);
	}
	hand_over(ends[0], sock);
	close(sock);
	return status_of(pid);
}

static int listener(void)
{
	int one = 1, sock = socket(family, SOCK_STREAM, 0);

	setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(sock, (void *)&other, other_size) || listen(sock, 8))
		exit(refused("listen"));
	return sock;
}

static int accepted(int sock)
{
	char got[256];
	int peer;

	fputs("listening\n", stdout), fflush(stdout);
	if (!ready(sock, POLLIN) || (peer = accept(sock, NULL, NULL)) < 0)
		return STOPPED;
	send(peer, "yes", 3, MSG_NOSIGNAL);
	// What comes is read, since the end of a process with unread bytes would take back the answer.
	while (ready(peer, POLLIN) && recv(peer, got, sizeof(got), 0) > 0)
		;
	return REACHED;
}

// Begins to connect and becomes another program at once, which has the socket, too, or has not; a child that has it waits for
// the answer.
static int change(char *program, int keeps)
{
	int sock = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	pid_t pid = fork();
	char number[16];

	if (!pid) {
		usleep(200000);
		_exit(answered(sock));
	}
	snprintf(number, sizeof(number), "%d", pid);
	fcntl(sock, F_SETFD, keeps ? 0 : FD_CLOEXEC);
	connect(sock, (void *)&other, other_size);
	execl(program, program, "reap", number, NULL);
	return refused(program);
}

// Sends an echo request with something in it, and is another program when somebody looks.
static int change_pinging(char *program)
{
	char packet[16] = {8, [8] = 's', 't', 'o', 'l', 'e', 'n'};
	int sock = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);

	if (sock < 0 || sendto(sock, packet, sizeof(packet), 0, (void *)&other, other_size) < 0)
		return refused("ping");
	execl(program, program, "idle", NULL);
	return refused(program);
}

// Listens and becomes another program at once; a child that has the same socket takes what comes.
static int change_listening(char *program)
{
	int sock = listener();
	pid_t pid = fork();
	char number[16];

	if (!pid) {
		usleep(300000);
		_exit(accepted(sock));
	}
	snprintf(number, sizeof(number), "%d", pid);
	fcntl(sock, F_SETFD, FD_CLOEXEC);
	execl(program, program, "reap", number, NULL);
	return refused(program);
}

static int vforked_sock;
static char *vforked_program;

static int vforked(void *unused)
{
	(void)unused;
	connect(vforked_sock, (void *)&other, other_size);
	execl(vforked_program, vforked_program, "idle", NULL);
	_exit(REFUSED);
}

// A child with the same memory and the same descriptors begins to connect, and becomes another program.
static int vforks(char *program)
{
	int result;
	pid_t pid;

	vforked_program = program;
	vforked_sock = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	pid = clone(vforked, (char *)malloc(STACK) + STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, NULL);
	usleep(200000);
	result = answered(vforked_sock);
	kill(pid, SIGKILL);
	return result;
}

// Begins to connect with a socket that an allowed program holds, too, and lets go of it: it is on its way to ourselves then.
// The first packet is sent again after a second, when nobody else seems to have the socket.
static int hide(char *program)
{
	int ends[2], sock = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), result;
	pid_t pid = fork();

	if (!pid) {
		execl(program, program, "idle", NULL);
		_exit(REFUSED);
	}
	usleep(100000);
	socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
	hand_over(ends[0], sock);
	connect(sock, (void *)&other, other_size);
	close(sock);
	usleep(1200000);
	result = answered(taken(ends[1]));
	kill(pid, SIGKILL);
	return result;
}

// Writes into an allowed program that waits for orders.
static int meddle(char *how, char *program, char *address)
{
	struct { int go; char address[64]; } wanted = {1, ""};
	struct iovec here = {&wanted, sizeof(wanted)}, there = {(void *)&orders, sizeof(wanted)};
	int traced = !strncmp(how, "ptrace", 6), status;
	unsigned long at = (unsigned long)&orders;
	char place[64];
	pid_t pid = fork();

	if (!pid) {
		if (!strcmp(how, "ptrace-traceme"))
			ptrace(PTRACE_TRACEME, 0, 0, 0);
		execl(program, program, "idle", NULL);
		_exit(REFUSED);
	}
	strncpy(wanted.address, address, sizeof(wanted.address) - 1);
	if (strcmp(how, "ptrace-traceme"))
		usleep(100000);
	if (!strcmp(how, "ptrace-attach") && ptrace(PTRACE_ATTACH, pid, 0, 0))
		return refused("attach");
	if (traced) {
		waitpid(pid, &status, 0);
		for (unsigned i = sizeof(wanted) / sizeof(long) * sizeof(long) + sizeof(long); i; i -= sizeof(long)) {
			long word = 0;
			memcpy(&word, (char *)&wanted + i - sizeof(long), i > sizeof(wanted) ? sizeof(wanted) % sizeof(long) : sizeof(long));
			if (ptrace(PTRACE_POKEDATA, pid, at + i - sizeof(long), word))
				return refused("poke");
		}
		ptrace(PTRACE_DETACH, pid, 0, 0);
	} else if (!strcmp(how, "mem")) {
		snprintf(place, sizeof(place), "/proc/%d/mem", pid);
		if (pwrite(open(place, O_WRONLY), &wanted, sizeof(wanted), at) != sizeof(wanted))
			return refused(place);
	} else if (process_vm_writev(pid, &here, 1, &there, 1, 0) != sizeof(wanted)) {
		return refused("process_vm_writev");
	}
	return status_of(pid);
}

static int idle(char *port)
{
	for (int i = 0; i < 300 && !orders.go; i++)
		usleep(10000);
	if (!orders.go)
		return STOPPED;
	aim((char *)orders.address, port);
	return fetch();
}

static int with_mark(unsigned mark)
{
	int sock = socket(family, SOCK_STREAM, 0);

	return setsockopt(sock, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) ? refused("SO_MARK") : connected(sock);
}

static int with_marked_datagram(unsigned mark)
{
	char space[CMSG_SPACE(sizeof(int))] = {}, got[16];
	struct iovec data = {"hello", 5};
	struct msghdr message = {&other, other_size, &data, 1, space, sizeof(space), 0};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	int other_sock = socket(family, SOCK_STREAM, 0), sock = socket(family, SOCK_DGRAM, 0);

	// A packet that is dropped gives the same error.
	if (setsockopt(other_sock, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)))
		return refused("SO_MARK");
	head->cmsg_level = SOL_SOCKET, head->cmsg_type = SO_MARK, head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &mark, sizeof(int));
	if (sendmsg(sock, &message, 0) < 0)
		return STOPPED;
	return ready(sock, POLLIN) && recv(sock, got, sizeof(got), 0) > 0 ? REACHED : STOPPED;
}

// Connects by io_uring, in a thread of the kernel's where it likes.
static int uring(int flags)
{
	struct io_uring_params given = {.flags = flags};
	int ring = syscall(SYS_io_uring_setup, 4, &given), sock = socket(family, SOCK_STREAM, 0);
	struct io_uring_sqe *entry;
	unsigned *tail, *array;
	char *rings;

	if (ring < 0)
		return refused("io_uring");
	rings = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	entry = mmap(NULL, given.sq_entries * sizeof(*entry), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	tail = (unsigned *)(rings + given.sq_off.tail), array = (unsigned *)(rings + given.sq_off.array);
	memset(entry, 0, sizeof(*entry));
	entry->opcode = IORING_OP_CONNECT, entry->fd = sock, entry->addr = (unsigned long)&other, entry->off = other_size;
	entry->flags = IOSQE_ASYNC;
	array[0] = 0;
	__atomic_store_n(tail, 1, __ATOMIC_RELEASE);
	syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS | (flags ? IORING_ENTER_SQ_WAKEUP : 0), NULL, 0);
	return answered(sock);
}

// Puts anonymous memory with the same content in the place of what is mapped from our own file.
static int leave_file(void)
{
	char line[512], self[256] = "";
	unsigned long from[16], to[16];
	int count = 0;
	FILE *maps = fopen("/proc/self/maps", "r");

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return refused("/proc/self/exe");
	while (count < 16 && fgets(line, sizeof(line), maps))
		if (strstr(line, self))
			sscanf(line, "%lx-%lx", &from[count], &to[count]), count++;
	fclose(maps);
	for (int i = 0; i < count; i++) {
		unsigned long size = to[i] - from[i];
		char *copy = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memcpy(copy, (void *)from[i], size);
		if (mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, from[i]) == MAP_FAILED)
			return refused("mremap");
	}
	return 0;
}

// Says that this memory began as another file: prctl(PR_SET_MM_MAP), which whoever is alone in a user name space may.
static int pretend(void *program)
{
	unsigned long page = 1 << 20;
	struct prctl_mm_map map = {page, page + 1, page, page, page, page, page, page, page, page, page, NULL, 0, 0};

	if (unshare(CLONE_NEWUSER))
		return refused("unshare");
	map.exe_fd = open(program, O_RDONLY);
	if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0))
		return refused("PR_SET_MM_MAP");
	return 0;
}

static int packet(void)
{
	int sock = socket(AF_PACKET, SOCK_DGRAM, 0);

	return sock < 0 ? refused("AF_PACKET") : REACHED;
}

// Tells of arguments that it was not given.
static int with_arguments(char *first, const char *pretended)
{
	strcpy(first, pretended);
	prctl(PR_SET_NAME, "python3");
	return fetch();
}

// As many connections to other ports as are asked for, none of which is waited for.
static int flood(int type, int first, int count)
{
	for (int i = 0; i < count; i++) {
		struct sockaddr_in to = *(struct sockaddr_in *)&other;
		int sock = socket(family, type | SOCK_NONBLOCK, 0);

		to.sin_port = htons(first + i);
		if (type == SOCK_DGRAM)
			sendto(sock, "hello", 5, 0, (void *)&to, sizeof(to));
		else
			connect(sock, (void *)&to, sizeof(to));
		close(sock);
	}
	return REACHED;
}

// Connects and sends in one call.
static int fast(int sock)
{
	char got[16];

	if (sendto(sock, "hello\n", 6, MSG_FASTOPEN | MSG_NOSIGNAL, (void *)&other, other_size) < 0 && errno != EINPROGRESS)
		return STOPPED;
	return ready(sock, POLLIN) && recv(sock, got, sizeof(got), 0) > 0 ? REACHED : STOPPED;
}

#ifdef PRELOADED
__attribute__((constructor)) static void loaded(void)
{
	aim(getenv("ATTACK_ADDRESS"), getenv("ATTACK_PORT"));
	_exit(fetch());
}
#endif

int main(int count, char **words)
{
	char *how = words[1], *more = count > 4 ? words[4] : "", *further = count > 5 ? words[5] : "";
	int is(const char *name) { return !strcmp(how, name); }

	if (is("idle"))
		return idle("8080");
	if (is("reap")) {
		close(socket(AF_INET, SOCK_DGRAM, 0)); // so that it is noticed, whoever it is
		waitid(P_PID, atoi(words[2]), &(siginfo_t){}, WEXITED | WNOWAIT);
		return status_of(atoi(words[2]));
	}
	aim(words[2], words[3]);
	if (is("fetch"))
		return fetch();
	if (is("datagram"))
		return datagram(socket(family, SOCK_DGRAM, 0), atoi(more));
	if (is("mptcp")) {
		int sock = socket(family, SOCK_STREAM, 262);
		return sock < 0 ? refused("mptcp") : connected(sock);
	}
	if (is("datagram-from"))
		return datagram_from(atoi(more));
	if (is("change"))
		return change(more, 0);
	if (is("change-keeping"))
		return change(more, 1);
	if (is("change-pinging"))
		return change_pinging(more);
	if (is("change-listening"))
		return change_listening(more);
	if (is("vfork"))
		return vforks(more);
	if (is("hide"))
		return hide(more);
	if (is("meddle"))
		return meddle(more, further, words[2]);
	if (is("mark"))
		return with_mark(strtoul(more, NULL, 0));
	if (is("cmsg"))
		return with_marked_datagram(strtoul(more, NULL, 0));
	if (is("uring"))
		return uring(atoi(more) ? IORING_SETUP_SQPOLL : 0);
	if (is("packet"))
		return packet();
	if (is("arguments"))
		return with_arguments(words[1], further);
	if (is("flood"))
		return flood(atoi(more) ? SOCK_STREAM : SOCK_DGRAM, 10000, atoi(further));
	if (is("pretend"))
		return leave_file() || pretend(more) ? REFUSED : fetch();
	if (is("pretend-by-child")) {
		pid_t pid;
		if (leave_file())
			return REFUSED;
		pid = clone(pretend, (char *)malloc(STACK) + STACK, CLONE_VM | SIGCHLD, more);
		return status_of(pid) ? REFUSED : fetch();
	}
	// A socket from one program to another: over exec, or by SCM_RIGHTS.
	if (is("give-connected")) {
		int sock = socket(family, SOCK_STREAM, 0);
		return connect(sock, (void *)&other, other_size) ? STOPPED : give(sock, more, "take-connected", words + 2);
	}
	if (is("give-new"))
		return give(socket(family, SOCK_STREAM, 0), more, "take-new", words + 2);
	if (is("give-fast"))
		return give(socket(family, SOCK_STREAM, 0), more, "take-fast", words + 2);
	if (is("give-datagrams"))
		return give(socket(family, SOCK_DGRAM, 0), more, "take-datagrams", words + 2);
	if (is("give-listener"))
		return give(listener(), more, "take-listener", words + 2);
	if (is("inherit")) {
		char number[16];
		snprintf(number, sizeof(number), "%d", socket(family, SOCK_STREAM, 0));
		execl(more, more, "inherited", words[2], words[3], number, NULL);
		return refused(more);
	}
	if (is("inherited"))
		return connected(atoi(more));
	if (is("listen"))
		return accepted(listener());
	if (is("take-connected"))
		return answered(taken(atoi(more)));
	if (is("take-new"))
		return connected(taken(atoi(more)));
	if (is("take-fast"))
		return fast(taken(atoi(more)));
	if (is("take-datagrams")) {
		int sock = taken(atoi(more)), first = datagram(sock, 5);
		return first == REACHED ? first : datagram(sock, 5);
	}
	if (is("take-listener"))
		return accepted(taken(atoi(more)));
	fprintf(stderr, "%s: no such attack\n", how);
	return REFUSED;
}

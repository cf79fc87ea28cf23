// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Labels: writes into a few bits of a socket's mark which program uses it, so that the packet filter can ask.
//
// A program is the file that it was started from: device, inode and generation of the executable of the task that creates,
// binds, connects or (unconnected UDP) sends. What each file's mark is stands in `programs`, filled from user space; a file that
// is not there gives no label, which no rule takes for an allowed one, and is told of in `misses`.
//
// Which hook relabels what, and what none can:
//   create             every socket, by who makes it (TCP, UDP, ICMP, raw)
//   bind, connect      by who does it: an inherited or passed socket changes hands here
//   sendmsg            UDP sockets without a fixed other end; the kernel has read the mark of this datagram before
//                      (net/ipv4/udp.c: ipcm_init_sk), so the ruleset asks the socket's and not the packet's
//   setsockopt         SO_MARK by whoever may: the other bits are his, ours stay
//   sockops            nothing: a TCP socket that is about to connect has its port by now, and who did that is noted with
//                      both ends in `connecting`, for the history. Whoever reads that asks for no socket, which may be gone
// A connected socket that is passed on keeps the label of who connected it. Values of whole marks by which others route (wg-quick,
// Mullvad) stand in `foreign`; a socket with such a mark is left as it is, without a label.
//
// Structures of the kernel are only named as far as they are read; the loader finds the places (CO-RE).
// What changes here in maps or their values changes in src/pfw/drivers/labels.py.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#define SOL_SOCKET 1
#define SO_MARK 36
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define GO_ON 1

typedef __u32 dev_t;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct super_block {
	dev_t s_dev;
};
struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_generation;
};
struct file {
	struct inode *f_inode;
};
struct mm_struct {
	struct file *exe_file;
};
struct task_struct {
	struct mm_struct *mm;
	int tgid;
	struct task_struct *group_leader;
	__u64 start_boottime;
};
struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
};
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};
#pragma clang attribute pop

struct executable {
	__u64 inode;
	__u32 device;
	__u32 generation;
};
// Each is written by itself: several processes do so, and none shall undo what another has just said.
enum setting {
	MASK,
	USER_BITS, // whether some user or group has bits
	DAEMON,    // who may write our bits with SO_MARK
	SETTINGS,
};
struct user_mark {
	__u32 mark;
	__u32 bits;
};
struct owner {
	struct executable file;
	__u64 started_ns;
	__u64 cgroup;
	__u32 pid;
	__u32 uid;
	__u32 gid;
	__u32 mark;
	char name[16];
};
// A TCP connection as its packets have it: an IPv4 address is in the first four bytes, ports are numbers.
struct connection {
	__u64 namespace;
	__u32 source[4];
	__u32 destination[4];
	__u16 source_port;
	__u16 port;
	__u32 family;
};
struct miss {
	struct executable file;
	__u32 pid;
	__u32 uid;
};
struct identity {
	struct executable file;
	__u32 fd;
	__u32 unused;
};

#define MAP(name, kind, entries, key_type, value_type)   \
	struct {                                             \
		__uint(type, kind);                              \
		__uint(max_entries, entries);                    \
		__type(key, key_type);                           \
		__type(value, value_type);                       \
	} name SEC(".maps")

MAP(settings, BPF_MAP_TYPE_ARRAY, SETTINGS, __u32, __u32);
MAP(programs, BPF_MAP_TYPE_HASH, 32768, struct executable, __u32);
MAP(user_bits, BPF_MAP_TYPE_HASH, 4096, __u32, __u32);
MAP(group_bits, BPF_MAP_TYPE_HASH, 4096, __u32, __u32);
MAP(user_marks, BPF_MAP_TYPE_HASH, 32768, struct user_mark, __u32);
MAP(foreign, BPF_MAP_TYPE_HASH, 256, __u32, __u8);
MAP(owners, BPF_MAP_TYPE_LRU_HASH, 65536, __u64, struct owner);
MAP(connecting, BPF_MAP_TYPE_LRU_HASH, 16384, struct connection, struct owner);
MAP(told, BPF_MAP_TYPE_LRU_HASH, 1024, struct executable, __u64);
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} misses SEC(".maps");

static __always_inline __u32 setting(__u32 which)
{
	__u32 *found = bpf_map_lookup_elem(&settings, &which);

	return found ? *found : 0;
}

static __always_inline int read_executable(struct file *file, struct executable *found)
{
	struct inode *inode = file->f_inode;

	if (!inode)
		return 0;
	found->inode = inode->i_ino;
	found->device = inode->i_sb->s_dev;
	found->generation = inode->i_generation;
	return 1;
}

// The mark of who is running, without the bits of others; 0 for a program that is not known.
static __always_inline __u32 own_mark(struct executable *file)
{
	__u64 ids;
	__u32 id, *found, *bits;
	struct user_mark key = {};

	found = bpf_map_lookup_elem(&programs, file);
	if (!found)
		return 0;
	if (!setting(USER_BITS))
		return *found;
	key.mark = *found;
	ids = bpf_get_current_uid_gid();
	id = (__u32)ids;
	bits = bpf_map_lookup_elem(&user_bits, &id);
	key.bits = bits ? *bits : 0;
	id = ids >> 32;
	bits = bpf_map_lookup_elem(&group_bits, &id);
	key.bits |= bits ? *bits : 0;
	if (!key.bits)
		return key.mark;
	found = bpf_map_lookup_elem(&user_marks, &key);
	return found ? *found : 0;
}

static __always_inline void tell(struct executable *file)
{
	__u64 now = bpf_ktime_get_ns(), *before = bpf_map_lookup_elem(&told, file);
	struct miss *miss;

	if (before && now - *before < 200000000)
		return;
	bpf_map_update_elem(&told, file, &now, BPF_ANY);
	miss = bpf_ringbuf_reserve(&misses, sizeof(*miss), 0);
	if (!miss)
		return;
	miss->file = *file;
	miss->pid = bpf_get_current_pid_tgid() >> 32;
	miss->uid = (__u32)bpf_get_current_uid_gid();
	bpf_ringbuf_submit(miss, 0);
}

static __always_inline void note(__u64 cookie, struct executable *file, struct task_struct *task, __u32 mark)
{
	struct owner owner = {};
	__u64 ids = bpf_get_current_uid_gid();

	owner.file = *file;
	owner.started_ns = task->group_leader->start_boottime;
	owner.cgroup = bpf_get_current_cgroup_id();
	owner.pid = bpf_get_current_pid_tgid() >> 32;
	owner.uid = (__u32)ids;
	owner.gid = ids >> 32;
	owner.mark = mark;
	bpf_get_current_comm(owner.name, sizeof(owner.name));
	bpf_map_update_elem(&owners, &cookie, &owner, BPF_ANY);
}

// What a socket's mark shall be, now that this task uses it. Who that is, is noted for the socket with this cookie; 0
// where it is not yet worth it.
static __always_inline __u32 label(__u32 mark, __u64 cookie)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct executable file = {};
	struct owner *known;
	struct mm_struct *mm;
	struct file *exe;
	__u32 own = 0, mask = setting(MASK);

	mm = task->mm;
	exe = mm ? mm->exe_file : 0;
	if (exe && read_executable(exe, &file)) {
		own = own_mark(&file);
		if (!own)
			tell(&file);
	}
	// No label is a mark by which others route, even where that consists of bits of ours alone.
	if (mark && bpf_map_lookup_elem(&foreign, &mark))
		own = mark & mask;
	if (cookie) {
		known = bpf_map_lookup_elem(&owners, &cookie);
		if (!known || known->pid != (__u32)(bpf_get_current_pid_tgid() >> 32) || known->mark != own ||
		    known->file.inode != file.inode)
			note(cookie, &file, task, own);
	}
	return (mark & ~mask) | (own & mask);
}

SEC("cgroup/sock_create")
int pfw_create(struct bpf_sock *sock)
{
	__u64 cookie = 0;

	if (sock->family != AF_INET && sock->family != AF_INET6)
		return GO_ON;
	// TCP and UDP sockets are noted when they are bound, connected or send; of others this is all that is heard.
	if (sock->protocol != IPPROTO_TCP && sock->protocol != IPPROTO_UDP)
		cookie = bpf_get_socket_cookie(sock);
	sock->mark = label(sock->mark, cookie);
	return GO_ON;
}

SEC("cgroup/sock_release")
int pfw_release(struct bpf_sock *sock)
{
	__u64 cookie = bpf_get_socket_cookie(sock);

	bpf_map_delete_elem(&owners, &cookie);
	return GO_ON;
}

static __always_inline int relabel(struct bpf_sock_addr *address)
{
	struct bpf_sock *sock = address->sk;
	__u32 before, mark;

	if (!sock)
		return GO_ON;
	before = sock->mark;
	mark = label(before, bpf_get_socket_cookie(address));
	if (mark != before)
		bpf_setsockopt(address, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	return GO_ON;
}

#define RELABELS(hook)                                                                                                 \
	SEC("cgroup/" #hook) int pfw_##hook(struct bpf_sock_addr *address)                                                 \
	{                                                                                                                  \
		return relabel(address);                                                                                       \
	}

RELABELS(bind4)
RELABELS(bind6)
RELABELS(connect4)
RELABELS(connect6)
RELABELS(sendmsg4)
RELABELS(sendmsg6)

SEC("cgroup/setsockopt")
int pfw_setsockopt(struct bpf_sockopt *option)
{
	__u32 mask, *wanted = option->optval;
	struct bpf_sock *sock = option->sk;

	if (option->level != SOL_SOCKET || option->optname != SO_MARK || !sock ||
	    (void *)(wanted + 1) > option->optval_end) {
		option->optlen = 0; // what was given, as it was given
		return GO_ON;
	}
	mask = setting(MASK);
	if (setting(DAEMON) != (__u32)(bpf_get_current_pid_tgid() >> 32) && !bpf_map_lookup_elem(&foreign, wanted))
		*wanted = (*wanted & ~mask) | (sock->mark & mask);
	return GO_ON;
}

SEC("sockops")
int pfw_connecting(struct bpf_sock_ops *at)
{
	struct connection found = {};
	struct owner *owner;
	__u64 cookie;

	at->reply = -1; // whatever else is asked here: as ever
	if (at->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return GO_ON;
	cookie = bpf_get_socket_cookie(at);
	owner = bpf_map_lookup_elem(&owners, &cookie);
	if (!owner)
		return GO_ON;
	found.namespace = bpf_get_netns_cookie(at);
	found.source_port = at->local_port;
	found.port = bpf_ntohl(at->remote_port);
	// An IPv6 socket may talk IPv4.
	if (at->family == AF_INET6 && (at->remote_ip6[0] || at->remote_ip6[1] || at->remote_ip6[2] != bpf_htonl(0xffff))) {
		found.family = AF_INET6;
		found.source[0] = at->local_ip6[0];
		found.source[1] = at->local_ip6[1];
		found.source[2] = at->local_ip6[2];
		found.source[3] = at->local_ip6[3];
		found.destination[0] = at->remote_ip6[0];
		found.destination[1] = at->remote_ip6[1];
		found.destination[2] = at->remote_ip6[2];
		found.destination[3] = at->remote_ip6[3];
	} else {
		found.family = AF_INET;
		found.source[0] = at->local_ip4;
		found.destination[0] = at->remote_ip4;
	}
	bpf_map_update_elem(&connecting, &found, owner, BPF_ANY);
	return GO_ON;
}

// Tells how the kernel calls the files that whoever reads this has open, O_PATH ones too.
SEC("iter/task_file")
int pfw_identify(struct bpf_iter__task_file *at)
{
	struct task_struct *task = at->task;
	struct file *file = at->file;
	struct identity found = {};

	if (!task || !file || (__u32)task->tgid != (__u32)(bpf_get_current_pid_tgid() >> 32))
		return 0;
	if (!read_executable(file, &found.file))
		return 0;
	found.fd = at->fd;
	bpf_seq_write(at->meta->seq, &found, sizeof(found));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

#define _GNU_SOURCE
#include "shim.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n)
{
	uint16_t got = rte_eth_rx_burst(port, queue, pkts, n);
	for (uint16_t i = 0; i < got; i++)
		rte_prefetch0(rte_pktmbuf_mtod(pkts[i], void *));
	return got;
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, pkts, n);
}

struct rte_mbuf *shim_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int shim_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, n);
}

void shim_pktmbuf_free(struct rte_mbuf *m)
{
	rte_pktmbuf_free(m);
}

void shim_pktmbuf_free_seg(struct rte_mbuf *m)
{
	rte_pktmbuf_free_seg(m);
}

uint16_t shim_refcnt_read(const struct rte_mbuf *m)
{
	uint16_t n = rte_mbuf_refcnt_read(m);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return n;
}

uint16_t shim_refcnt_update(struct rte_mbuf *m, int16_t by)
{
	return rte_mbuf_refcnt_update(m, by);
}

/* Works for direct mbufs as well: their buffer follows them at the same distance. */
static struct rte_mbuf *base_of(const struct rte_mbuf *m)
{
	return (struct rte_mbuf *)((char *)m->buf_addr - sizeof(*m) - m->priv_size);
}

uint16_t shim_base_refcnt_read(const struct rte_mbuf *m)
{
	return shim_refcnt_read(base_of(m));
}

void shim_attach(struct rte_mbuf *mi, const struct rte_mbuf *m, uint16_t off, uint16_t len)
{
	rte_mbuf_refcnt_update(base_of(m), 1);
	mi->priv_size = m->priv_size;
	mi->buf_addr = m->buf_addr;
	mi->buf_len = m->buf_len;
	rte_mbuf_iova_set(mi, rte_mbuf_iova_get(m));
	mi->ol_flags = RTE_MBUF_F_INDIRECT;
	mi->data_off = off;
	mi->data_len = len;
	mi->pkt_len = len;
	mi->nb_segs = 1;
	mi->next = NULL;
}

uint32_t shim_mempool_cached(struct rte_mempool *pool, unsigned int lcore)
{
	if (pool->cache_size == 0 || lcore >= RTE_MAX_LCORE)
		return 0;
	return __atomic_load_n(&pool->local_cache[lcore].len, __ATOMIC_ACQUIRE);
}

uint32_t shim_mempool_size(const struct rte_mempool *pool)
{
	return pool->size;
}

struct rte_mbuf *shim_ipv4_reassemble(struct rte_ip_frag_tbl *tbl, struct rte_ip_frag_death_row *dr,
				      struct rte_mbuf *mb, uint64_t tms, void *ip)
{
	return rte_ipv4_frag_reassemble_packet(tbl, dr, mb, tms, ip);
}

struct rte_mbuf *shim_ipv6_reassemble(struct rte_ip_frag_tbl *tbl, struct rte_ip_frag_death_row *dr,
				      struct rte_mbuf *mb, uint64_t tms, void *ip)
{
	struct rte_ipv6_hdr *fixed = ip;

	return rte_ipv6_frag_reassemble_packet(tbl, dr, mb, tms, fixed, (void *)(fixed + 1));
}

int shim_link_is_up(const struct rte_eth_link *link)
{
	return link->link_status == RTE_ETH_LINK_UP;
}

unsigned int shim_lcore_id(void)
{
	return rte_lcore_id();
}

int shim_errno(void)
{
	return rte_errno;
}

uint64_t shim_rdtsc(void)
{
	return rte_rdtsc();
}

static void (*log_sink)(const char *text, size_t len);

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	log_sink(text, len);
	return (ssize_t)len;
}

int shim_log_to(void (*sink)(const char *text, size_t len))
{
	cookie_io_functions_t io = { .write = log_write };
	FILE *stream;

	log_sink = sink;
	stream = fopencookie(NULL, "w", io);
	if (stream == NULL)
		return -errno;
	setvbuf(stream, NULL, _IOLBF, BUFSIZ);
	return rte_openlog_stream(stream);
}

unsigned int shim_interface_index(const char *name)
{
	return if_nametoindex(name);
}

static int interface_ioctl(const char *name, unsigned long request, struct ifreq *ifr)
{
	int fd, result;

	if (strlen(name) >= IFNAMSIZ)
		return -ENODEV;
	memset(ifr, 0, sizeof(*ifr));
	strcpy(ifr->ifr_name, name);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	result = ioctl(fd, request, ifr) < 0 ? -errno : 0;
	close(fd);
	return result;
}

int shim_interface_mtu(const char *name)
{
	struct ifreq ifr;
	int result = interface_ioctl(name, SIOCGIFMTU, &ifr);

	return result < 0 ? result : ifr.ifr_mtu;
}

int shim_interface_flags(const char *name)
{
	struct ifreq ifr;
	int result = interface_ioctl(name, SIOCGIFFLAGS, &ifr);

	return result < 0 ? result : (unsigned short)ifr.ifr_flags;
}

int shim_packet_interface(int fd)
{
	struct sockaddr_ll addr;
	socklen_t len = sizeof(addr);

	if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		return -errno;
	return addr.sll_family == AF_PACKET ? addr.sll_ifindex : -EINVAL;
}

int shim_packet_statistics(int fd, uint32_t *frames, uint32_t *drops)
{
	struct tpacket_stats stats;
	socklen_t len = sizeof(stats);

	if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) < 0)
		return -errno;
	*frames = stats.tp_packets;
	*drops = stats.tp_drops;
	return 0;
}

/* Since Linux 4.20 and 5.0; Debian 12's headers have both. */
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

/* Longest copy of a frame that is given. */
#define WHOLE 0x40000
/* What is given of a frame that this host sends: the headers of any TCP segment. */
#define HEADERS 192

static int filter(int fd, struct sock_filter *code, unsigned short len)
{
	struct sock_fprog program = { .len = len, .filter = code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
}

int shim_packet_mute(int fd)
{
	struct sock_filter none[] = { BPF_STMT(BPF_RET | BPF_K, 0) };

	return filter(fd, none, 1);
}

/* What comes, whole; of what is sent, the headers of untagged TCP segments with payload. */
static int hear_what_is_sent(int fd)
{
	struct sock_filter code[] = {
		/*  0 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
		/*  1 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 0, 22),
		/*  2 */ BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
		/*  3 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 9),
		/*  4 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 23),
		/*  5 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 17),
		/* Is the total length more than a header of 20 bytes, as ours is, and the data offset? */
		/*  6 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 46),
		/*  7 */ BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf0),
		/*  8 */ BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 2),
		/*  9 */ BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 20),
		/* 10 */ BPF_STMT(BPF_MISC | BPF_TAX, 0),
		/* 11 */ BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 16),
		/* 12 */ BPF_JUMP(BPF_JMP | BPF_JGT | BPF_X, 0, 9, 10),
		/* 13 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 0, 9),
		/* 14 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 20),
		/* 15 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 7),
		/* 16 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 66),
		/* 17 */ BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf0),
		/* 18 */ BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 2),
		/* 19 */ BPF_STMT(BPF_MISC | BPF_TAX, 0),
		/* 20 */ BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 18),
		/* 21 */ BPF_JUMP(BPF_JMP | BPF_JGT | BPF_X, 0, 0, 1),
		/* 22 */ BPF_STMT(BPF_RET | BPF_K, HEADERS),
		/* 23 */ BPF_STMT(BPF_RET | BPF_K, 0),
		/* 24 */ BPF_STMT(BPF_RET | BPF_K, WHOLE),
	};

	return filter(fd, code, sizeof(code) / sizeof(code[0]));
}

static int hear_what_comes(int fd)
{
	struct sock_filter all[] = { BPF_STMT(BPF_RET | BPF_K, WHOLE) };

	return filter(fd, all, 1);
}

/* Shares the flows with the other rings of the group, of which this may be the first. */
static int share(struct shim_ring *ring)
{
	int kind = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_DEFRAG | PACKET_FANOUT_FLAG_ROLLOVER;
	int arg = ring->group < 0 ? (kind | PACKET_FANOUT_FLAG_UNIQUEID) << 16 : kind << 16 | ring->group;
	socklen_t len = sizeof(arg);

	if (setsockopt(ring->fd, SOL_PACKET, PACKET_FANOUT, &arg, sizeof(arg)) < 0)
		return -errno;
	if (ring->group < 0) {
		if (getsockopt(ring->fd, SOL_PACKET, PACKET_FANOUT, &arg, &len) < 0)
			return -errno;
		ring->group = arg & 0xffff;
	}
	return 0;
}

static int ring_open(struct shim_ring *ring)
{
	struct tpacket_req req = {
		.tp_block_size = ring->block_size,
		.tp_block_nr = ring->frames / (ring->block_size / ring->frame_size),
		.tp_frame_size = ring->frame_size,
		.tp_frame_nr = ring->frames,
	};
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)ring->interface,
	};
	int version = TPACKET_V2, one = 1, room = 8 << 20, result;
	int fd = ring->fd;

	if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) < 0 ||
	    /* Frames that are too long for their place in the ring are queued as well. */
	    setsockopt(fd, SOL_PACKET, PACKET_COPY_THRESH, &one, sizeof(one)) < 0)
		return -errno;
	/* The room for these. What is more than the system allows by itself needs a capability. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	/* An older kernel tells of what is sent; the reader leaves it out. */
	if (!ring->outgoing)
		setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one));
	/* Nothing before all is set. */
	result = shim_packet_mute(fd);
	if (result < 0)
		return result;
	if (setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req)) < 0)
		return -errno;
	ring->ring = mmap(NULL, (size_t)req.tp_block_size * req.tp_block_nr, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring->ring == MAP_FAILED) {
		ring->ring = NULL;
		return -errno;
	}
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	if (ring->shared_by > 1) {
		result = share(ring);
		if (result < 0)
			return result;
	}
	return ring->outgoing ? hear_what_is_sent(fd) : hear_what_comes(fd);
}

int shim_ring_open(struct shim_ring *ring)
{
	int result;

	ring->ring = NULL;
	ring->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ring->fd < 0)
		return -errno;
	result = ring_open(ring);
	if (result < 0)
		shim_ring_close(ring);
	return result;
}

void shim_ring_close(struct shim_ring *ring)
{
	if (ring->ring != NULL)
		munmap(ring->ring, (size_t)ring->frames * ring->frame_size);
	if (ring->fd >= 0)
		close(ring->fd);
	ring->ring = NULL;
	ring->fd = -1;
}

ssize_t shim_ring_long_frame(int fd, void *into, size_t size)
{
	ssize_t got = recv(fd, into, size, MSG_DONTWAIT);

	return got < 0 ? -errno : got;
}

_Static_assert((int)SHIM_IFF_UP == (int)IFF_UP, "IFF_UP");
_Static_assert((int)SHIM_IFF_PROMISC == (int)IFF_PROMISC, "IFF_PROMISC");

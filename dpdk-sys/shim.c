#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
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

_Static_assert((int)SHIM_IFF_UP == (int)IFF_UP, "IFF_UP");
_Static_assert((int)SHIM_IFF_PROMISC == (int)IFF_PROMISC, "IFF_PROMISC");

/* What DPDK offers only inline, as macros or as thread-locals, in a form that can be called and read from outside C. */
#ifndef DPDK_SHIM_H
#define DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/if_packet.h>

#include <rte_bus_vdev.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ip_frag.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Offsets of the fields of struct rte_mbuf (rte_mbuf_core.h), in bytes. */
enum shim_mbuf_offset {
	SHIM_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	SHIM_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	SHIM_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	SHIM_MBUF_PORT = offsetof(struct rte_mbuf, port),
	SHIM_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	SHIM_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	SHIM_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	SHIM_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
	SHIM_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	SHIM_MBUF_NEXT = offsetof(struct rte_mbuf, next),
	SHIM_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload),
	SHIM_MBUF_SIZE = sizeof(struct rte_mbuf),
};

/* Where l3_len stands in the word at SHIM_MBUF_TX_OFFLOAD; l2_len and all else are zero beside it. */
enum shim_mbuf_l3_len {
	SHIM_MBUF_L3_LEN_SHIFT = RTE_MBUF_L3_LEN_OFS,
	SHIM_MBUF_L3_LEN_BITS = RTE_MBUF_L3_LEN_BITS,
};

/* RTE_BIT64 macros, which bindgen cannot read. */
static const uint64_t SHIM_MBUF_F_INDIRECT = RTE_MBUF_F_INDIRECT;
static const uint64_t SHIM_MBUF_F_EXTERNAL = RTE_MBUF_F_EXTERNAL;
static const uint64_t SHIM_MBUF_F_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t SHIM_MBUF_F_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t SHIM_MBUF_F_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t SHIM_MBUF_F_RX_L4_CKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;
static const uint64_t SHIM_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t SHIM_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SHIM_TX_OFFLOAD_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t SHIM_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SHIM_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t SHIM_RSS_IPV4 = RTE_ETH_RSS_IPV4;
static const uint64_t SHIM_RSS_IPV6 = RTE_ETH_RSS_IPV6;
static const uint64_t SHIM_RSS_TCP_V4 = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t SHIM_RSS_TCP_V6 = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t SHIM_RSS_IPV6_EX = RTE_ETH_RSS_IPV6_EX;
static const uint64_t SHIM_RSS_TCP_V6_EX = RTE_ETH_RSS_IPV6_TCP_EX;

/* Interface flags (netdevice(7)). */
enum shim_interface_flag {
	SHIM_IFF_UP = 0x1,
	SHIM_IFF_PROMISC = 0x100,
};

/* rte_eth_rx_burst(), and a prefetch of the first bytes of what arrived. */
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n);
/* rte_eth_tx_burst() */
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n);

/* rte_pktmbuf_alloc() */
struct rte_mbuf *shim_pktmbuf_alloc(struct rte_mempool *pool);
/* rte_pktmbuf_alloc_bulk(): 0, or negative with nothing allocated. */
int shim_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n);
/* rte_pktmbuf_free(): drops one reference of each segment of the chain. */
void shim_pktmbuf_free(struct rte_mbuf *m);
/* rte_pktmbuf_free_seg(): drops one reference of this segment alone. */
void shim_pktmbuf_free_seg(struct rte_mbuf *m);
/* The reference count, with acquire order: whoever sees 1 also sees all that earlier holders did. */
uint16_t shim_refcnt_read(const struct rte_mbuf *m);
/* rte_mbuf_refcnt_update(): the count after the change. */
uint16_t shim_refcnt_update(struct rte_mbuf *m, int16_t by);
/*
 * Makes the fresh direct mbuf `mi` an indirect one for `len` bytes at `off` of the buffer that `m` uses, as rte_pktmbuf_attach() does, but
 * reads no field of `m` that its other holders may be changing: buf_addr, buf_len, buf_iova and priv_size alone. `m` has no
 * external buffer.
 */
void shim_attach(struct rte_mbuf *mi, const struct rte_mbuf *m, uint16_t off, uint16_t len);
/* rte_mbuf_refcnt_read() of the mbuf whose buffer `m` uses (`m` itself if direct), with acquire order. */
uint16_t shim_base_refcnt_read(const struct rte_mbuf *m);

/* Objects in the cache that lcore `lcore` has of `pool`; 0 without a cache. */
uint32_t shim_mempool_cached(struct rte_mempool *pool, unsigned int lcore);
/* How many objects `pool` was made with. */
uint32_t shim_mempool_size(const struct rte_mempool *pool);

/*
 * rte_ipv4_frag_reassemble_packet() of `mb`, whose l2_len and l3_len are set, for the fragment that the IPv4 header at `ip` describes.
 * `ip` need not be in the mbuf: what reassembly writes, it writes into the first fragment's mbuf.
 */
struct rte_mbuf *shim_ipv4_reassemble(struct rte_ip_frag_tbl *tbl, struct rte_ip_frag_death_row *dr,
				      struct rte_mbuf *mb, uint64_t tms, void *ip);
/* rte_ipv6_frag_reassemble_packet(), the same; the fragment header follows the fixed header at `ip`. */
struct rte_mbuf *shim_ipv6_reassemble(struct rte_ip_frag_tbl *tbl, struct rte_ip_frag_death_row *dr,
				      struct rte_mbuf *mb, uint64_t tms, void *ip);

/* 1 if the link is up. */
int shim_link_is_up(const struct rte_eth_link *link);

/* rte_lcore_id(): LCORE_ID_ANY on threads that are no lcore. */
unsigned int shim_lcore_id(void);
/* rte_errno of this thread. */
int shim_errno(void);
/* rte_rdtsc() */
uint64_t shim_rdtsc(void);

/*
 * Sends every line that DPDK logs to `sink` instead of to stderr and syslog. Call it once. 0, or a negative errno.
 */
int shim_log_to(void (*sink)(const char *text, size_t len));

/* Index of a network interface in the caller's network namespace, 0 if there is none of this name. */
unsigned int shim_interface_index(const char *name);
/* MTU of that interface; a negative errno on failure. */
int shim_interface_mtu(const char *name);
/* Flags of that interface (netdevice(7)); a negative errno on failure. */
int shim_interface_flags(const char *name);

/* Index of the interface that the packet socket `fd` is bound to; a negative errno if it is no packet socket. */
int shim_packet_interface(int fd);
/*
 * PACKET_STATISTICS (packet(7)) of the packet socket `fd`, which has a ring of TPACKET_V1 or V2: frames that came for it since this was
 * asked last, and of these the ones that found its ring full. 0, or a negative errno.
 */
int shim_packet_statistics(int fd, uint32_t *frames, uint32_t *drops);

/* A ring of TPACKET_V2 (packet(7), linux/if_packet.h) that a packet socket of ours receives into. */
struct shim_ring {
	/* In: the interface, bytes of each frame's place, how many, and of each block of them. */
	unsigned int interface;
	uint32_t frame_size;
	uint32_t frames;
	uint32_t block_size;
	/* In: how many rings share the flows. In and out: the number of their group; negative for the first of them. */
	int shared_by;
	int group;
	/* In: also tells of TCP segments with payload that this host sends. */
	int outgoing;
	/* Out: the socket, and where the ring is. */
	int fd;
	void *ring;
};

/* Where fields stand in a frame's place of the ring, in bytes, and the bits of its status. */
enum shim_ring_field {
	SHIM_RING_STATUS = offsetof(struct tpacket2_hdr, tp_status),
	SHIM_RING_LEN = offsetof(struct tpacket2_hdr, tp_len),
	SHIM_RING_SNAPLEN = offsetof(struct tpacket2_hdr, tp_snaplen),
	SHIM_RING_MAC = offsetof(struct tpacket2_hdr, tp_mac),
	SHIM_RING_SEC = offsetof(struct tpacket2_hdr, tp_sec),
	SHIM_RING_NSEC = offsetof(struct tpacket2_hdr, tp_nsec),
	SHIM_RING_VLAN_TCI = offsetof(struct tpacket2_hdr, tp_vlan_tci),
	SHIM_RING_VLAN_TPID = offsetof(struct tpacket2_hdr, tp_vlan_tpid),
	SHIM_RING_PKTTYPE = TPACKET_ALIGN(sizeof(struct tpacket2_hdr)) + offsetof(struct sockaddr_ll, sll_pkttype),
};

enum shim_ring_bits {
	SHIM_RING_USER = TP_STATUS_USER,
	SHIM_RING_COPY = TP_STATUS_COPY,
	SHIM_RING_VLAN_VALID = TP_STATUS_VLAN_VALID,
	SHIM_RING_VLAN_TPID_VALID = TP_STATUS_VLAN_TPID_VALID,
	SHIM_RING_OUTGOING = PACKET_OUTGOING,
};

/* Opens and maps the ring; what comes is in it from now on. 0, or a negative errno, and nothing is open. */
int shim_ring_open(struct shim_ring *ring);
/* Unmaps and closes it. */
void shim_ring_close(struct shim_ring *ring);
/* The whole of the next frame that was too long for its place: its bytes, of `size` at most; a negative errno. */
ssize_t shim_ring_long_frame(int fd, void *into, size_t size);
/* From now on the packet socket `fd` is given nothing. 0, or a negative errno. */
int shim_packet_mute(int fd);

#endif

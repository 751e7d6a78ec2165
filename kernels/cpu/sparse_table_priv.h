/*
 * Which of the bytes (or words) behind an 8-bit mask goes where: shuffles for instruction sets that have no expanding load.  Place i of
 * entry m holds the number of set bits below i, or 0x80, which shuffles as zero, where bit i is not set.
 */
#ifndef SKF_KERNELS_SPARSE_TABLE_PRIV_H
#define SKF_KERNELS_SPARSE_TABLE_PRIV_H

#include <stdint.h>

#define SKF_BELOW(m, i) __builtin_popcount((m) & ((1u << (i)) - 1))
#define SKF_BYTE(m, i)  ((m) >> (i) & 1 ? SKF_BELOW(m, i) : 0x80)
#define SKF_WORD(m, i)                                                                                                 \
    ((m) >> (i) & 1 ? 2 * SKF_BELOW(m, i) : 0x80), ((m) >> (i) & 1 ? 2 * SKF_BELOW(m, i) + 1 : 0x80)
#define SKF_OF8(f, m) {f(m, 0), f(m, 1), f(m, 2), f(m, 3), f(m, 4), f(m, 5), f(m, 6), f(m, 7)}
#define SKF_M4(f, m)  SKF_OF8(f, m), SKF_OF8(f, (m) + 1), SKF_OF8(f, (m) + 2), SKF_OF8(f, (m) + 3)
#define SKF_M16(f, m) SKF_M4(f, m), SKF_M4(f, (m) + 4), SKF_M4(f, (m) + 8), SKF_M4(f, (m) + 12)
#define SKF_M64(f, m) SKF_M16(f, m), SKF_M16(f, (m) + 16), SKF_M16(f, (m) + 32), SKF_M16(f, (m) + 48)
#define SKF_M256(f)   {SKF_M64(f, 0u), SKF_M64(f, 64u), SKF_M64(f, 128u), SKF_M64(f, 192u)}

static const uint8_t skf_sparse_bytes[256][8] = SKF_M256(SKF_BYTE);
static const uint8_t skf_sparse_words[256][16] = SKF_M256(SKF_WORD);

#endif

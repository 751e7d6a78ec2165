/* K-quants to float32 (the layouts stand in quant_k.c), in the order of operations of gguf's and ggml's own. */
#include "base/buf.h"
#include "model/quant_priv.h"

static void six_bits(const uint8_t *q, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = q[j] & 63;
        *min = q[j + 4] & 63;
    } else {
        *scale = (q[j + 4] & 15) | q[j - 4] >> 6 << 4;
        *min = q[j + 4] >> 4 | q[j] >> 6 << 4;
    }
}

void skf_block_of_q2_k(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q + 80)), m = skf_f16_to_f32(skf_le16(q + 82));
    for (int j = 0; j < 16; j++) {
        float scale = d * (float)(q[j] & 15), min = m * (float)(q[j] >> 4);
        const uint8_t *c = q + 16 + j / 8 * 32 + j % 2 * 16;
        for (int i = 0; i < 16; i++)
            *x++ = scale * (float)(c[i] >> 2 * (j / 2 % 4) & 3) - min;
    }
}

void skf_block_of_q3_k(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q + 108));
    for (int j = 0; j < 16; j++) {
        int small = (q[96 + j % 8] >> 4 * (j / 8) & 15) | (q[104 + j % 4] >> 2 * (j / 4) & 3) << 4;
        float scale = d * (float)(small - 32);
        const uint8_t *c = q + 32 + j / 8 * 32 + j % 2 * 16, *high = q + j % 2 * 16;
        for (int i = 0; i < 16; i++)
            *x++ = scale * (float)((c[i] >> 2 * (j / 2 % 4) & 3) - (high[i] >> j / 2 & 1 ? 0 : 4));
    }
}

void skf_block_of_q4_k(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q)), m = skf_f16_to_f32(skf_le16(q + 2));
    for (int j = 0; j < 8; j++) {
        int scale, min;
        six_bits(q + 4, j, &scale, &min);
        float ds = d * (float)scale, mm = m * (float)min;
        for (int i = 0; i < 32; i++)
            *x++ = ds * (float)(q[16 + j / 2 * 32 + i] >> 4 * (j % 2) & 15) - mm;
    }
}

void skf_block_of_q5_k(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q)), m = skf_f16_to_f32(skf_le16(q + 2));
    for (int j = 0; j < 8; j++) {
        int scale, min;
        six_bits(q + 4, j, &scale, &min);
        float ds = d * (float)scale, mm = m * (float)min;
        for (int i = 0; i < 32; i++) {
            int code = (q[48 + j / 2 * 32 + i] >> 4 * (j % 2) & 15) | (q[16 + i] >> j & 1) << 4;
            *x++ = ds * (float)code - mm;
        }
    }
}

void skf_block_of_q6_k(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q + 208));
    for (int j = 0; j < 16; j++) {
        float scale = d * (float)(int8_t)q[192 + j];
        int half = j / 8, quarter = j / 2 % 4; /* of the half: 32 elements */
        const uint8_t *low = q + half * 64 + quarter % 2 * 32 + j % 2 * 16, *high = q + 128 + half * 32 + j % 2 * 16;
        for (int i = 0; i < 16; i++)
            *x++ = scale * (float)(((low[i] >> 4 * (quarter / 2) & 15) | (high[i] >> 2 * quarter & 3) << 4) - 32);
    }
}

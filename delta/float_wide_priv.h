/*
 * The loops that compilers do not turn into vectors by themselves, over sixteen numbers at once.  The file including
 * this has defined them for its instruction set: vf, sixteen float32; vi, sixteen 32-bit integers; and the operations
 * below, and GUESS_PACKED, NULL or a loop of its own.  What is left behind the last sixteen goes the plain way, which gives the same.
 */
#define WHOLE(n) ((n) & ~15u)

static void NAME(far_wide)(const uint8_t *sym, uint64_t *mask, uint32_t n, unsigned least)
{
    for (uint32_t i = 0; i < n; i += 64) {
        uint8_t pad[64] = {0};
        mask[i / 64] = above_of_64(n - i < 64 ? memcpy(pad, sym + i, n - i) : sym + i, least);
    }
}

/* Sums of products of small integers: exact, fused or not. */
static void NAME(guess_wide)(const int8_t *u, const float *v, unsigned rank, uint32_t n, float unit, float *guess)
{
    uint32_t i = 0;
    for (; i + 64 <= n; i += 64) {
        vf a = vf_set(0), b = a, c = a, d = a;
        for (unsigned k = 0; k < rank; k++) {
            const float *row = v + (size_t)k * n + i;
            vf by = vf_set(u[k]);
            a = vf_sum(a, by, vf_load(row));
            b = vf_sum(b, by, vf_load(row + 16));
            c = vf_sum(c, by, vf_load(row + 32));
            d = vf_sum(d, by, vf_load(row + 48));
        }
        vf_store(guess + i, vf_mul(a, vf_set(unit)));
        vf_store(guess + i + 16, vf_mul(b, vf_set(unit)));
        vf_store(guess + i + 32, vf_mul(c, vf_set(unit)));
        vf_store(guess + i + 48, vf_mul(d, vf_set(unit)));
    }
    for (; i < n; i++) {
        float sum = 0;
        for (unsigned k = 0; k < rank; k++)
            sum += (float)u[k] * v[(size_t)k * n + i];
        guess[i] = sum * unit;
    }
}

static void NAME(guess_bf16_wide)(const uint8_t *old, const float *guess, uint8_t *ref, uint32_t n)
{
    const vi infinite = vi_set(0x7f800000);
    for (uint32_t i = 0; i < WHOLE(n); i += 16) {
        vi w = vi_shl(vi_halves(old + 2 * (size_t)i), 16);
        vi u = vi_of(vf_add(vf_of(w), vf_load(guess + i)));
        u = vi_add(u, vi_add(vi_set(0x7fff), vi_and(vi_shr(u, 16), vi_set(1))));
        u = vi_pick(vi_and(w, infinite), infinite, w, u);
        vi_put_halves(ref + 2 * (size_t)i, vi_shr(u, 16));
    }
    NAME(guess_bf16)(old + 2 * (size_t)WHOLE(n), guess + WHOLE(n), ref + 2 * (size_t)WHOLE(n), n % 16);
}

static void NAME(guess_f16_wide)(const uint8_t *old, const float *guess, uint8_t *ref, uint32_t n)
{
    const vi infinite = vi_set(0x7c00);
    for (uint32_t i = 0; i < WHOLE(n); i += 16) {
        vi w = vi_halves(old + 2 * (size_t)i);
        vi u = vf_put_f16(vf_add(vf_f16(w), vf_load(guess + i)));
        vi_put_halves(ref + 2 * (size_t)i, vi_pick(vi_and(w, infinite), infinite, w, u));
    }
    NAME(guess_f16)(old + 2 * (size_t)WHOLE(n), guess + WHOLE(n), ref + 2 * (size_t)WHOLE(n), n % 16);
}

static void NAME(f16_to_bf16_wide)(const uint8_t *in, uint8_t *out, uint32_t n)
{
    for (uint32_t i = 0; i < WHOLE(n); i += 16)
        vi_put_halves(out + 2 * (size_t)i, vi_shr(vi_of(vf_f16(vi_halves(in + 2 * (size_t)i))), 16));
    NAME(f16_to_bf16)(in + 2 * (size_t)WHOLE(n), out + 2 * (size_t)WHOLE(n), n % 16);
}

static void NAME(bf16_to_f16_wide)(const uint8_t *in, uint8_t *out, uint32_t n)
{
    for (uint32_t i = 0; i < WHOLE(n); i += 16)
        vi_put_halves(out + 2 * (size_t)i, vf_put_f16(vf_of(vi_shl(vi_halves(in + 2 * (size_t)i), 16))));
    NAME(bf16_to_f16)(in + 2 * (size_t)WHOLE(n), out + 2 * (size_t)WHOLE(n), n % 16);
}

INLINE vf change_wide(vf a, vf b)
{
    vi d = vi_of(vf_add(b, vf_of(vi_xor(vi_of(a), vi_set((int)0x80000000u))))); /* b - a */
    vi size = vi_and(d, vi_set(0x7fffffff));
    return vf_of(vi_pick(vi_min(size, vi_set(CHANGE_MAX)), size, d, vi_set(0)));
}

static void NAME(change_bf16_wide)(const uint8_t *old, const uint8_t *neu, float *out, uint32_t n)
{
    for (uint32_t i = 0; i < WHOLE(n); i += 16) {
        vi a = vi_halves(old + 2 * (size_t)i), b = vi_halves(neu + 2 * (size_t)i);
        vf_store(out + i, change_wide(vf_of(vi_shl(a, 16)), vf_of(vi_shl(b, 16))));
    }
    NAME(change_bf16)(old + 2 * (size_t)WHOLE(n), neu + 2 * (size_t)WHOLE(n), out + WHOLE(n), n % 16);
}

static void NAME(change_f16_wide)(const uint8_t *old, const uint8_t *neu, float *out, uint32_t n)
{
    for (uint32_t i = 0; i < WHOLE(n); i += 16)
        vf_store(out + i, change_wide(vf_f16(vi_halves(old + 2 * (size_t)i)), vf_f16(vi_halves(neu + 2 * (size_t)i))));
    NAME(change_f16)(old + 2 * (size_t)WHOLE(n), neu + 2 * (size_t)WHOLE(n), out + WHOLE(n), n % 16);
}

/* Sixteen bit patterns to integers in the order of the numbers. */
static inline __attribute__((always_inline)) vi ordered_wide(vi v, unsigned shift)
{
    vi is_below = vi_sub(vi_set(0), vi_shr(v, 15)); /* all ones where the sign is set */
    vi o = vi_xor(v, vi_or(vi_and(is_below, vi_set(0xffff)), vi_set(0x8000)));
    return vi_shr(o, shift);
}

static void NAME(measure_wide)(const uint8_t *ref, const uint8_t *neu, uint32_t n, unsigned exponent_at, unsigned shift,
                               float *move, float *size)
{
    const vi mask = vi_set((1 << (15 - exponent_at)) - 1);
    vf moves = vf_set(0), sizes = moves;
    for (uint32_t i = 0; i < n; i += 16) {
        uint16_t pad[32] = {0};
        const uint8_t *pa = ref + 2 * (size_t)i, *pb = neu + 2 * (size_t)i;
        if (n - i < 16) {
            memcpy(pad, pa, 2 * (size_t)(n - i));
            memcpy(pad + 16, pb, 2 * (size_t)(n - i));
            pa = (const uint8_t *)pad;
            pb = (const uint8_t *)(pad + 16);
        }
        vi a = vi_halves(pa);
        vi d = vi_abs(vi_sub(ordered_wide(vi_halves(pb), shift), ordered_wide(a, shift)));
        vf unit = vf_of(vi_shl(vi_min(vi_and(vi_shr(a, exponent_at), mask), vi_set(190)), 23));
        moves = vf_add(moves, vf_mul(vi_float(d), unit));
        sizes = vf_add(sizes, unit);
    }
    float lanes[16];
    vf_store(lanes, moves);
    *move = sum_of(lanes, 16);
    vf_store(lanes, sizes);
    *size = sum_of(lanes, 16);
}

static float NAME(dot_wide)(const float *a, const float *b, uint32_t n)
{
    vf s = vf_set(0), t = s;
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32) {
        s = vf_add(s, vf_mul(vf_load(a + i), vf_load(b + i)));
        t = vf_add(t, vf_mul(vf_load(a + i + 16), vf_load(b + i + 16)));
    }
    float lanes[32];
    vf_store(lanes, s);
    vf_store(lanes + 16, t);
    for (; i < n; i++)
        lanes[0] += a[i] * b[i];
    return sum_of(lanes, 32);
}

const struct skf_loops NAME(skf_loops) = {
    NAME(keys),
    NAME(add),
    NAME(sub),
    NAME(far_wide),
    NAME(measure_wide),
    NAME(guess_wide),
    GUESS_PACKED,
    NAME(guess_bf16_wide),
    NAME(guess_f16_wide),
    NAME(guess_f32),
    NAME(f16_to_bf16_wide),
    NAME(bf16_to_f16_wide),
    NAME(change_bf16_wide),
    NAME(change_f16_wide),
    NAME(dot_wide),
    NAME(add_scaled),
};

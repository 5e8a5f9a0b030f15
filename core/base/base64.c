/* base64.c - base64 without a table of its own state. Layer: base. Interface: base64.h. */
#include "base/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (ascii_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static uint32_t byte_at(struct str s, size_t i)
{
    return i < s.n ? (unsigned char)s.p[i] : 0u;
}

size_t base64_encode(struct str bytes, char *dst)
{
    size_t n = 0;

    for (size_t i = 0; i < bytes.n; i += 3) {
        uint32_t v = byte_at(bytes, i) << 16 | byte_at(bytes, i + 1) << 8 | byte_at(bytes, i + 2);

        dst[n++] = alphabet[v >> 18 & 63];
        dst[n++] = alphabet[v >> 12 & 63];
        dst[n++] = '=';
        dst[n++] = '=';
        if (i + 1 < bytes.n)
            dst[n - 2] = alphabet[v >> 6 & 63];
        if (i + 2 < bytes.n)
            dst[n - 1] = alphabet[v & 63];
    }
    return n;
}

int base64_add(struct buf *b, struct str bytes)
{
    char *at = buf_room(b, BASE64_TEXT(bytes.n));

    if (!at)
        return b->failed;
    buf_added(b, base64_encode(bytes, at));
    return 0;
}

/* One group of four characters, of which `used` carry bits: 0 or -EINVAL. */
static int take_group(const char *p, size_t used, uint32_t *ret)
{
    uint32_t v = 0;

    for (size_t i = 0; i < 4; i++) {
        int six = i < used ? value_of(p[i]) : 0;
        if (six < 0)
            return -EINVAL;
        v = v << 6 | (uint32_t)six;
    }
    *ret = v;
    return 0;
}

int base64_decode(struct str text, void *dst, size_t size, size_t *ret_n)
{
    unsigned char *out = dst;
    size_t pad = 0, n = 0;
    uint32_t v;

    if (text.n % 4)
        return -EINVAL;
    while (pad < 2 && pad < text.n && text.p[text.n - 1 - pad] == '=')
        pad++;
    /* First all is looked at, then written: dst may overlap the text. */
    for (size_t i = 0; i < text.n; i += 4) {
        size_t used = i + 4 == text.n ? 4 - pad : 4;
        if (take_group(text.p + i, used, &v) < 0 || v & ((1u << 8 * (4 - used)) - 1))
            return -EINVAL;
    }
    if (text.n / 4 * 3 - pad > size)
        return -EMSGSIZE;
    for (size_t i = 0; i < text.n; i += 4) {
        size_t used = i + 4 == text.n ? 4 - pad : 4;
        (void)take_group(text.p + i, used, &v);
        for (size_t k = 0; k + 1 < used; k++)
            out[n++] = (unsigned char)(v >> (16 - 8 * k));
    }
    *ret_n = n;
    return 0;
}

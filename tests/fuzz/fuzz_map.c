/* Files of maps: whatever is accepted can be walked and found again, row by row. The first octet says
 * which kind of keys. */
#include <stdlib.h>

#include "mail/map.h"

static void check_row(const struct map *m, const struct map_row *row)
{
    struct map_row found;
    struct str fields = row->fields, value;
    int n = 1;

    CHECK(row->key.n > 0 && row->key.n <= MAP_MAX_KEY);
    CHECK(map_line(m, row) >= 1);
    while (map_row_next(&fields, &value)) {
        CHECK(!memchr(value.n ? value.p : "", '\n', value.n));
        n++;
    }
    CHECK(n <= MAP_MAX_FIELDS);
    if (map_keys(m) == MAP_KEYS_NETS) {
        struct net_cidr net;
        CHECK(net_cidr_parse(row->key, &net) == 0);
        CHECK(map_find_net(m, &net.base, &found));
        return;
    }
    CHECK(map_find(m, row->key, &found) && found.at == row->at);
    if (map_keys(m) == MAP_KEYS_MAIL) {
        char normal[MAP_MAX_KEY];
        ptrdiff_t r = map_key_normalize(MAP_KEYS_MAIL, row->key, normal);
        CHECK(r == (ptrdiff_t)row->key.n && memcmp(normal, row->key.p, row->key.n) == 0);
        CHECK(map_find_mail(m, row->key, &found) && found.at == row->at);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum map_keys kinds[] = { MAP_KEYS_MAIL, MAP_KEYS_TEXT, MAP_KEYS_NETS };
    struct map_error err = { .line = 0 };
    struct map_row row;
    size_t cursor = 0, rows = 0;
    struct map *m;

    if (size < 1)
        return 0;
    char *bytes = malloc(size);
    CHECK(bytes);
    memcpy(bytes, data + 1, size - 1);
    int r = map_new(bytes, size - 1, kinds[data[0] % 3], &m, &err);
    if (r < 0) {
        CHECK(r == -EINVAL && err.line > 0 && err.text[0]);
        CHECK(str_is_utf8(str_of(err.text)));
        return 0;
    }
    for (; map_next(m, &cursor, &row); rows++)
        check_row(m, &row);
    CHECK(rows == map_count(m));
    map_unref(m);
    return 0;
}

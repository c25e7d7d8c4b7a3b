/* checks.c: the list of the tables of checks of clients; each lies in a file of its area, AREA.c. */
#include "../options.h"
#include "check.h"

/* clang-format off: a line for each area. */
#define TABLES(X) \
    X(header)     \
    X(connection) \
    X(version)    \
    X(map)        \
    X(info)       \
    X(region)     \
    X(irq)        \
    X(access)     \
    X(dma)        \
    X(twin)       \
    X(feature)
/* clang-format on */

#define X(area) extern const struct client_check client_##area##_checks[];
TABLES(X)
#undef X

const struct client_check *const client_checks[] = {
#define X(area) client_##area##_checks,
    TABLES(X)
#undef X
        NULL,
};

const struct check_name *client_check(unsigned n)
{
    const struct client_check *check = client_check_at(n);

    return check == NULL ? NULL : &check->is;
}

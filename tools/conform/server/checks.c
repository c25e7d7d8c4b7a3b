/* checks.c: the list of the tables of checks of servers; each lies in a file of its area, AREA.c. */
#include "../options.h"
#include "check.h"

/* clang-format off: a line for each area. */
#define TABLES(X) \
    X(header)     \
    X(info)       \
    X(map)        \
    X(twin)
/* clang-format on */

#define X(area) extern const struct check server_##area##_checks[];
TABLES(X)
#undef X

const struct check *const server_checks[] = {
#define X(area) server_##area##_checks,
    TABLES(X)
#undef X
        NULL,
};

const struct check_name *server_check(unsigned n)
{
    for (unsigned i = 0; server_checks[i] != NULL; i++) {
        for (const struct check *check = server_checks[i]; check->is.name != NULL; check++) {
            if (n-- == 0)
                return &check->is;
        }
    }
    return NULL;
}

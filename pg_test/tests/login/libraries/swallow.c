/* A bad neighbour: its ClientAuthentication hook does not call the one before it. */
#include "postgres.h"
#include "fmgr.h"
#include "libpq/auth.h"

PG_MODULE_MAGIC;
void _PG_init(void);

static void
swallow(Port *port, int status)
{
	elog(LOG, "swallow: user %s, status %d", port->user_name, status);
}

void
_PG_init(void)
{
	ClientAuthentication_hook = swallow;
}

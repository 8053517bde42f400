/* A bad neighbour that comes last: it puts its hook over everybody's in shmem_request_hook, and calls nobody. */
#include "postgres.h"
#include "fmgr.h"
#include "libpq/auth.h"
#include "miscadmin.h"

PG_MODULE_MAGIC;
void _PG_init(void);

static shmem_request_hook_type previous = NULL;

static void
last(Port *port, int status)
{
	elog(LOG, "last: user %s, status %d", port->user_name, status);
}

static void
request(void)
{
	if (previous)
		previous();
	ClientAuthentication_hook = last;
}

void
_PG_init(void)
{
	previous = shmem_request_hook;
	shmem_request_hook = request;
}

/* A good neighbour: chains as it should, and refuses one user by an error of its own. */
#include "postgres.h"
#include "fmgr.h"
#include "libpq/auth.h"

PG_MODULE_MAGIC;
void _PG_init(void);

static ClientAuthentication_hook_type previous = NULL;

static void
chain(Port *port, int status)
{
	if (previous)
		previous(port, status);
	elog(LOG, "chain: user %s, status %d", port->user_name, status);
	if (strcmp(port->user_name, "unwanted") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the neighbour refuses \"%s\"", port->user_name)));
}

void
_PG_init(void)
{
	previous = ClientAuthentication_hook;
	ClientAuthentication_hook = chain;
}

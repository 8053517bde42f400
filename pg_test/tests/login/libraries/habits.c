/*
 * A neighbour with hooks for passwords and utility statements. With ALONE it calls nobody before it; else it chains as
 * passwordcheck and pg_stat_statements do.
 */
#include "postgres.h"
#include "commands/user.h"
#include "fmgr.h"
#include "tcop/utility.h"

PG_MODULE_MAGIC;
void _PG_init(void);

static check_password_hook_type previous_password = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

static void
password(const char *user, const char *shadow, PasswordType type, Datum until, bool forever)
{
	elog(LOG, "habits: password of %s", user);
#ifndef ALONE
	if (previous_password)
		previous_password(user, shadow, type, until, forever);
#endif
}

static void
utility(PlannedStmt *pstmt, const char *query, bool read_only, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (IsA(pstmt->utilityStmt, AlterRoleSetStmt) || IsA(pstmt->utilityStmt, ListenStmt))
		elog(LOG, "habits: utility of tag %d", (int) nodeTag(pstmt->utilityStmt));
#ifndef ALONE
	if (previous_utility)
	{
		previous_utility(pstmt, query, read_only, context, params, env, dest, qc);
		return;
	}
#endif
	standard_ProcessUtility(pstmt, query, read_only, context, params, env, dest, qc);
}

void
_PG_init(void)
{
	previous_password = check_password_hook;
	check_password_hook = password;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}

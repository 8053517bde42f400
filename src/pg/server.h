/* What pg_oidc needs of the server's headers and pgrx does not bind, or binds wrongly (Port of 17). */
#include "postgres.h"
#include "miscadmin.h"
#include "catalog/pg_auth_members.h"
#include "commands/sequence.h"
#include "libpq/auth.h"
#include "libpq/hba.h"
#include "libpq/libpq.h"
#include "libpq/libpq-be.h"
#include "postmaster/bgworker_internals.h"
#include "postmaster/interrupt.h"
#include "storage/procsignal.h"
#if PG_VERSION_NUM >= 180000
#include "tcop/backend_startup.h"
#endif
#include "utils/elog.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"

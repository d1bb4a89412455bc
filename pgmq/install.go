package pgmq

import (
	"context"
	"errors"
	"fmt"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq/schema"
)

// InstallOption changes what Install installs.
type InstallOption interface{ applyInstall(o *installOptions) }

type installOptions struct {
	kind Kind // empty: the extension where possible, else our schema
}

type installKind Kind

func (k installKind) applyInstall(o *installOptions) { o.kind = Kind(k) }

// EmbeddedSchema installs this project's schema even where the extension can be had.
func EmbeddedSchema() InstallOption { return installKind(KindEmbedded) }

// Extension installs the extension, and fails where it cannot be had.
func Extension() InstallOption { return installKind(KindExtension) }

// Install sees to it that the database has PGMQ, and says which. It may be called at every start of
// every process: where nothing is to be done it costs a query or two, and any number of processes may
// call it at once.
//
// Without PGMQ the extension is created if the server offers it and the role may, else the embedded
// schema. An older embedded schema is upgraded, version by version, each in a transaction of its own;
// queues and messages stay. Everything else that speaks PGMQ is left as it is.
//
// It fails with *NewerSchemaError, *ChangedSchemaError, *OtherKindError, ErrUnknownSchema, or a
// *RightsError that names the missing right.
func (c *Client) Install(ctx context.Context, opts ...InstallOption) (Version, error) {
	return c.installVersions(ctx, schema.Versions(), opts...)
}

func (c *Client) installVersions(ctx context.Context, known []schema.Version, opts ...InstallOption) (Version, error) {
	op := installing
	in := installation{known: known}
	for _, opt := range opts {
		opt.applyInstall(&in.installOptions)
	}

	v, done, err := in.look(ctx, c)
	for err == nil && !done {
		err = c.InTx(ctx, func(tx *Client) error { return in.step(ctx, tx) })
		if err == nil {
			v, done, err = in.look(ctx, c)
		}
	}
	if errors.Is(err, ErrPermissionDenied) {
		return Version{}, op.fail(err) // it says already which right is missing
	}
	if err != nil {
		return Version{}, c.wrap(ctx, op, err)
	}
	return v, nil
}

// installation is what one Install wants.
type installation struct {
	installOptions
	known []schema.Version
}

// step brings the database one step further: it creates the extension or applies one version.
func (in installation) step(ctx context.Context, c *Client) error {
	if err := lockInstall(ctx, c, installing); err != nil {
		return err
	}
	s, err := c.schemaState(ctx)
	if err != nil {
		return err
	}
	if _, done, err := in.judge(s); err != nil || done {
		return err
	}
	if s.version() == 0 && in.kind != KindEmbedded {
		created, err := in.createExtension(ctx, c, s)
		if err != nil || created {
			return err
		}
	}
	if missing := s.missingRight(); missing != "" {
		return &RightsError{Role: s.role, Missing: []string{missing}, Err: errInstallRight}
	}
	next := in.known[s.version()]
	if err := exec(ctx, c, installing, next.Statement()); err != nil {
		return fmt.Errorf("schema version %d: %w", next.Number, err)
	}
	return nil
}

// lockInstall lets one process at a time change what is installed, to the end of its transaction. In read
// committed the next statement sees what the process before has committed, so that nothing is done twice;
// in a stricter level it would not.
func lockInstall(ctx context.Context, c *Client, op operation) error {
	if err := exec(ctx, c, op, `set transaction isolation level read committed`); err != nil {
		return err
	}
	return exec(ctx, c, op, `select pg_advisory_xact_lock(hashtextextended('pgmq.install', 0))`)
}

// installing is the operation of all that Install does.
var installing = operation{name: "install"}

// errInstallRight is the cause of a RightsError for which the server was not asked.
var errInstallRight = errors.New("it is needed to install PGMQ")

// createExtension reports whether it has created the extension. Whether the role may is found out by
// trying: the catalog does not know what managed servers let their administrators do.
func (in installation) createExtension(ctx context.Context, c *Client, s schemaState) (bool, error) {
	if s.offered == "" {
		if in.kind == KindExtension {
			return false, fmt.Errorf("%w: this server does not offer the extension pgmq", ErrUnsupported)
		}
		return false, nil
	}
	err := c.InTx(ctx, func(tx *Client) error {
		return exec(ctx, tx, installing, `create extension pgmq cascade`)
	})
	var state interface{ SQLState() string } // of pgx and of lib/pq
	if !errors.As(err, &state) || state.SQLState() != stateInsufficientPrivilege {
		return err == nil, err
	}
	if in.kind == KindExtension {
		return false, &RightsError{Role: s.role, Missing: []string{"the right to create the extension pgmq"}, Err: err}
	}
	return false, nil
}

// look says what the database has, and whether nothing is left to do.
func (in installation) look(ctx context.Context, c *Client) (v Version, done bool, err error) {
	s, err := c.schemaState(ctx)
	if err != nil {
		return Version{}, false, err
	}
	return in.judge(s)
}

func (in installation) judge(s schemaState) (v Version, done bool, err error) {
	v, err = s.installed()
	if errors.Is(err, ErrNotInstalled) {
		return Version{}, false, nil
	}
	if err != nil {
		return Version{}, false, err
	}
	if in.kind != "" && in.kind != v.Kind {
		return Version{}, false, &OtherKindError{Installed: v, Wanted: in.kind}
	}
	done = v.Kind != KindEmbedded || v.Number == len(in.known)
	return v, done, checkLedger(s.ledger, in.known)
}

// checkLedger compares the versions that were applied with those that are known.
func checkLedger(ledger []ledgerRow, known []schema.Version) error {
	for i, row := range ledger {
		if i >= len(known) {
			return &NewerSchemaError{Installed: ledger[len(ledger)-1].version, Known: len(known)}
		}
		if row.version != known[i].Number || row.checksum != known[i].Checksum {
			return &ChangedSchemaError{Number: row.version, Installed: row.checksum, Known: known[i].Checksum}
		}
	}
	return nil
}

// schemaState is what the catalog says about PGMQ in this database.
type schemaState struct {
	role      string
	database  string
	extension string // the version of the extension, empty without it
	offered   string // the version of the extension that the server could create, or empty
	hasSchema bool
	isEmpty   bool // the schema has nothing in it, or is not there
	hasLedger bool
	hasPGMQ   bool // the schema has what every PGMQ has
	mayUse    bool
	mayCreate bool   // in the schema, or the schema itself
	owner     string // of the embedded schema's objects, empty without it
	isOwner   bool   // the role is the owner, or a member of it
	ledger    []ledgerRow
}

type ledgerRow struct {
	version  int
	checksum string
}

// version is that of the embedded schema, 0 without it.
func (s schemaState) version() int { return len(s.ledger) }

// missingRight names the right without which the next version cannot be applied.
func (s schemaState) missingRight() string {
	switch {
	case s.version() > 0 && !s.isOwner:
		return "membership in role " + s.owner
	case s.mayCreate:
		return ""
	case s.hasSchema:
		return "CREATE on schema pgmq"
	default:
		return "CREATE on database " + s.database
	}
}

// schemaState asks the catalog itself, because functions like to_regclass fail without the right to use
// the schema.
func (c *Client) schemaState(ctx context.Context) (schemaState, error) {
	s, err := queryOne(ctx, c, installing, scanSchemaState, `
		with schema as (
			select n.oid
			from pg_catalog.pg_namespace as n
			where n.nspname = 'pgmq'
		), ledger as (
			select r.relowner
			from schema as s
			join pg_catalog.pg_class as r on r.relnamespace = s.oid
			where r.relname = '_ledger'
		)
		select
			current_user::text,
			current_database()::text,
			coalesce((select e.extversion from pg_catalog.pg_extension as e where e.extname = 'pgmq'), ''),
			coalesce((select e.default_version from pg_catalog.pg_available_extensions as e where e.name = 'pgmq'), ''),
			exists (select from schema),
			not exists (
				select from schema as s join pg_catalog.pg_class as r on r.relnamespace = s.oid
				union all
				select from schema as s join pg_catalog.pg_proc as p on p.pronamespace = s.oid
				union all
				select from schema as s join pg_catalog.pg_type as t on t.typnamespace = s.oid
			),
			exists (select from ledger),
			exists (
				select from schema as s join pg_catalog.pg_class as r on r.relnamespace = s.oid
				where r.relname = 'meta'
			) and exists (
				select from schema as s join pg_catalog.pg_proc as p on p.pronamespace = s.oid
				where p.proname = 'send'
			),
			coalesce((select has_schema_privilege(s.oid, 'usage') from schema as s), true),
			coalesce(
				(select has_schema_privilege(s.oid, 'create') from schema as s),
				has_database_privilege(current_database(), 'create')
			),
			coalesce((select pg_get_userbyid(l.relowner)::text from ledger as l), ''),
			coalesce((select pg_has_role(l.relowner, 'usage') from ledger as l), false)`)
	if err != nil || !s.hasLedger {
		return s, err
	}
	if !s.mayUse {
		return s, &RightsError{Role: s.role, Missing: []string{"USAGE on schema pgmq"}, Err: errInstallRight}
	}
	s.ledger, err = query(ctx, c, installing, scanLedgerRow, `
		select l.version, l.checksum from pgmq._ledger as l order by l.version`)
	return s, err
}

func scanSchemaState(r row) (s schemaState, err error) {
	err = r.Scan(&s.role, &s.database, &s.extension, &s.offered, &s.hasSchema, &s.isEmpty, &s.hasLedger,
		&s.hasPGMQ, &s.mayUse, &s.mayCreate, &s.owner, &s.isOwner)
	return s, err
}

func scanLedgerRow(r row) (l ledgerRow, err error) {
	err = r.Scan(&l.version, &l.checksum)
	return l, err
}

// ErrUnknownSchema says that the database has a schema named pgmq that is not PGMQ's. It is not touched.
var ErrUnknownSchema = errors.New("the schema pgmq of this database is not PGMQ's")

// NewerSchemaError says that the embedded schema of the database is newer than this library, which
// therefore leaves it alone.
type NewerSchemaError struct {
	// Installed is the version in the database, Known the newest of this library.
	Installed, Known int
}

func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("the database has version %d of the schema, this library knows versions up to %d: use a newer one",
		e.Installed, e.Known)
}

// ChangedSchemaError says that a version in the database was applied with other statements than this
// library has for it. It is left alone.
type ChangedSchemaError struct {
	// Number is the version.
	Number int
	// Installed is the checksum in the database, Known that of this library.
	Installed, Known string
}

func (e *ChangedSchemaError) Error() string {
	return fmt.Sprintf("version %d of the schema was applied with checksum %s, this library has it with %s",
		e.Number, e.Installed, e.Known)
}

// OtherKindError says that the database has PGMQ, but of another kind than the option of Install asks for,
// or than Uninstall may drop.
type OtherKindError struct {
	Installed Version
	Wanted    Kind
}

func (e *OtherKindError) Error() string {
	return fmt.Sprintf("the PGMQ of this database is of kind %q, while %q is asked for", e.Installed.Kind, e.Wanted)
}

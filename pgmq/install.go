package pgmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq/schema"
)

// Kind says where the PGMQ of a database comes from.
type Kind string

const (
	// KindExtension is the PGMQ extension.
	KindExtension Kind = "extension"
	// KindEmbedded is this project's own schema, which Install creates and upgrades.
	KindEmbedded Kind = "embedded"
	// KindForeign is a PGMQ that neither of them created, for instance PGMQ's own plain SQL. It is used
	// and never altered.
	KindForeign Kind = "foreign"
)

// Version is the PGMQ of a database.
type Version struct {
	// Kind says where it comes from.
	Kind Kind
	// Number is the version of the embedded schema, counted from 1. 0 for the other kinds.
	Number int
	// Name is the version in words: "1.12.0" for the extension, Number for the embedded schema. Empty
	// for a foreign schema, which does not say.
	Name string
}

// String is what one would say about it: "extension 1.12.0".
func (v Version) String() string {
	if v.Name == "" {
		return string(v.Kind)
	}
	return string(v.Kind) + " " + v.Name
}

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
	op := operation{name: "install"}
	var o installOptions
	for _, opt := range opts {
		opt.applyInstall(&o)
	}

	v, done, err := c.installed(ctx, o.kind)
	for err == nil && !done {
		err = c.InTx(ctx, func(tx *Client) error {
			return tx.installStep(ctx, o.kind)
		})
		if err == nil {
			v, done, err = c.installed(ctx, o.kind)
		}
	}
	if err != nil {
		return Version{}, c.wrap(ctx, op, err)
	}
	return v, nil
}

// installStep brings the database one step further: it creates the extension or applies one version.
//
// Of many processes one at a time is past the lock. In read committed the statement after it sees what
// the process before has committed, so that no step is made twice; a stricter level would not.
func (c *Client) installStep(ctx context.Context, want Kind) error {
	if err := exec(ctx, c, `set transaction isolation level read committed`); err != nil {
		return err
	}
	if err := exec(ctx, c, `select pg_advisory_xact_lock(hashtextextended('pgmq.install', 0))`); err != nil {
		return err
	}
	if _, done, err := c.installed(ctx, want); err != nil || done {
		return err
	}
	s, err := c.schemaState(ctx)
	if err != nil {
		return err
	}
	if s.version == 0 && want != KindEmbedded {
		created, err := c.createExtension(ctx, s, want)
		if err != nil || created {
			return err
		}
	}
	if missing := s.missingRight(); missing != "" {
		return &RightsError{Role: s.Role, Missing: []string{missing}, Err: errInstallRight}
	}
	return c.applyVersion(ctx, schema.Versions()[s.version])
}

// errInstallRight is the cause of a RightsError for which the server was not asked.
var errInstallRight = errors.New("it is needed to install PGMQ")

// createExtension reports whether it has created the extension. Whether the role may is found out by
// trying: the catalog does not know what managed servers let their administrators do.
func (c *Client) createExtension(ctx context.Context, s schemaState, want Kind) (bool, error) {
	if s.Offered == "" {
		if want == KindExtension {
			return false, fmt.Errorf("%w: this server does not offer the extension pgmq", ErrUnsupported)
		}
		return false, nil
	}
	err := c.InTx(ctx, func(tx *Client) error {
		return exec(ctx, tx, `create extension pgmq cascade`)
	})
	if !hasState(err, stateInsufficientPrivilege) {
		return err == nil, err
	}
	if want == KindExtension {
		return false, &RightsError{Role: s.Role, Missing: []string{"the right to create the extension pgmq"}, Err: err}
	}
	return false, nil
}

// applyVersion applies one version and writes it into the ledger. The statements of the version are
// executed by one, because not every protocol takes several. The names in them shall mean what they mean
// in Postgres, whatever the caller's search_path has.
func (c *Client) applyVersion(ctx context.Context, v schema.Version) error {
	err := exec(ctx, c, `
		do $pgmq_install$
		declare
			caller_path constant text := pg_catalog.current_setting('search_path');
		begin
			perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
			execute $pgmq_version$`+v.SQL+`$pgmq_version$;
			perform pg_catalog.set_config('search_path', caller_path, true);
		end;
		$pgmq_install$`)
	if err != nil {
		return fmt.Errorf("schema version %d: %w", v.Number, err)
	}
	return exec(ctx, c, `
		insert into pgmq._ledger (version, checksum) values ($1::integer, $2::text)`, v.Number, v.Checksum)
}

// installed says what the database has, and whether nothing is left to do.
func (c *Client) installed(ctx context.Context, want Kind) (v Version, done bool, err error) {
	s, err := c.schemaState(ctx)
	if err != nil {
		return Version{}, false, err
	}
	known := schema.Versions()
	switch {
	case s.Extension != "":
		v, done = Version{Kind: KindExtension, Name: s.Extension}, true
	case s.version > 0:
		v, done = Version{Kind: KindEmbedded, Number: s.version, Name: strconv.Itoa(s.version)}, s.version == len(known)
	case s.HasPGMQ:
		v, done = Version{Kind: KindForeign}, true
	case !s.Empty:
		return Version{}, false, ErrUnknownSchema
	default:
		return Version{}, false, nil
	}
	if want != "" && want != v.Kind {
		return v, false, &OtherKindError{Installed: v, Wanted: want}
	}
	return v, done, checkLedger(s.ledger, known)
}

// checkLedger compares the versions that were applied with those that are known.
func checkLedger(ledger []ledgerRow, known []schema.Version) error {
	for i, row := range ledger {
		if i >= len(known) {
			return &NewerSchemaError{Installed: ledger[len(ledger)-1].Version, Known: len(known)}
		}
		if row.Version != known[i].Number || row.Checksum != known[i].Checksum {
			return &ChangedSchemaError{Number: row.Version, Installed: row.Checksum, Known: known[i].Checksum}
		}
	}
	return nil
}

// schemaState is what the catalog says about PGMQ in this database.
type schemaState struct {
	Role      string
	Database  string
	Extension string // the version of the extension, empty without it
	Offered   string // the version of the extension that the server could create, or empty
	HasSchema bool
	Empty     bool // the schema has nothing in it, or is not there
	HasLedger bool
	HasPGMQ   bool // the schema has what every PGMQ has
	MayUse    bool
	MayCreate bool // in the schema, or the schema itself
	Owns      bool

	ledger  []ledgerRow
	version int // of the embedded schema, 0 without it
}

type ledgerRow struct {
	Version  int
	Checksum string
}

// missingRight names the right without which the next version cannot be applied.
func (s schemaState) missingRight() string {
	switch {
	case !s.HasSchema && !s.MayCreate:
		return "CREATE on database " + s.Database
	case !s.MayCreate:
		return "CREATE on schema pgmq"
	case s.version > 0 && !s.Owns:
		return "ownership of schema pgmq"
	}
	return ""
}

// schemaState asks the catalog itself, because functions like to_regclass fail without the right to use
// the schema.
func (c *Client) schemaState(ctx context.Context) (schemaState, error) {
	s, err := queryOne(ctx, c, scanSchemaState, `
		with schema as (
			select n.oid, n.nspowner
			from pg_catalog.pg_namespace as n
			where n.nspname = 'pgmq'
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
			exists (
				select from schema as s join pg_catalog.pg_class as r on r.relnamespace = s.oid
				where r.relname = '_ledger'
			),
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
			coalesce((select pg_has_role(s.nspowner, 'usage') from schema as s), true)`)
	if err != nil || !s.HasLedger {
		return s, err
	}
	if !s.MayUse {
		return s, &RightsError{Role: s.Role, Missing: []string{"USAGE on schema pgmq"}, Err: errInstallRight}
	}
	s.ledger, err = query(ctx, c, scanLedgerRow, `
		select l.version, l.checksum from pgmq._ledger as l order by l.version`)
	s.version = len(s.ledger)
	return s, err
}

func scanSchemaState(r row) (s schemaState, err error) {
	err = r.Scan(&s.Role, &s.Database, &s.Extension, &s.Offered, &s.HasSchema, &s.Empty, &s.HasLedger,
		&s.HasPGMQ, &s.MayUse, &s.MayCreate, &s.Owns)
	return s, err
}

func scanLedgerRow(r row) (l ledgerRow, err error) {
	err = r.Scan(&l.Version, &l.Checksum)
	return l, err
}

func hasState(err error, state string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == state
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

// OtherKindError says that the database has PGMQ, but of another kind than the option of Install asks for.
type OtherKindError struct {
	Installed Version
	Wanted    Kind
}

func (e *OtherKindError) Error() string {
	return fmt.Sprintf("the database has PGMQ already, kind %q, while %q is asked for", e.Installed.Kind, e.Wanted)
}

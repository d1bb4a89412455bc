package pgmqtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq/schema"
)

// emptyTemplate is what Postgres itself provides: nothing that somebody added to template1 is in it.
const emptyTemplate = "template0"

// namePrefix begins the name of every database made here, so that leftovers on a given server are recognised.
const namePrefix = "pgmqtest_"

// CreateDatabase creates a database with PGMQ installed, on a server that may outlive it. drop drops it,
// whoever is connected to it.
//
// It is a copy of a template, which is made at the first call and costs more.
func (s *Server) CreateDatabase(ctx context.Context) (dsn string, drop func(context.Context) error, err error) {
	template, err := s.templateName(ctx)
	if err != nil {
		return "", nil, fmt.Errorf("pgmqtest: create the template database: %w", err)
	}
	return s.create(ctx, template)
}

// create clones a template.
func (s *Server) create(ctx context.Context, template string) (dsn string, drop func(context.Context) error, err error) {
	name := newName()
	dsn, err = withDatabase(s.dsn, name)
	if err != nil {
		return "", nil, fmt.Errorf("pgmqtest: %w", err)
	}
	err = s.admin(ctx, func(conn *pgx.Conn) error { return s.createDatabase(ctx, conn, name, template) })
	if err != nil {
		return "", nil, fmt.Errorf("pgmqtest: create database %s: %w", name, err)
	}
	drop = func(ctx context.Context) error {
		err := s.admin(ctx, func(conn *pgx.Conn) error { return dropDatabase(ctx, conn, name) })
		if err != nil {
			return fmt.Errorf("pgmqtest: drop database %s: %w", name, err)
		}
		return nil
	}
	return dsn, drop, nil
}

// templateName is the database that has PGMQ installed. The first call on a server makes it.
func (s *Server) templateName(ctx context.Context) (string, error) {
	s.templateMu.Lock()
	defer s.templateMu.Unlock()
	if s.template != "" {
		return s.template, nil
	}
	var name string
	err := s.admin(ctx, func(conn *pgx.Conn) (err error) {
		name, err = s.ensureTemplate(ctx, conn)
		return err
	})
	if err != nil {
		return "", err
	}
	s.template = name
	return name, nil
}

// ensureTemplate finds or makes the template of what pgmq.Install would install on this server today.
//
// Test binaries that share the server take turns. Whoever dies on the way, or has another maintenance
// database and so another lock, does no harm: a template is built under a name of its own and gets its
// final one when it is complete. Databases with that name already are then as good.
func (s *Server) ensureTemplate(ctx context.Context, conn *pgx.Conn) (_ string, err error) {
	name, err := currentTemplate(ctx, conn)
	if err != nil {
		return "", err
	}

	// The lock ends with the connection.
	if _, err := conn.Exec(ctx, `select pg_advisory_lock(hashtextextended($1::text, 0))`, name); err != nil {
		return "", err
	}
	exists, err := databaseExists(ctx, conn, name)
	if err != nil || exists {
		return name, err
	}

	building := newName()
	if err := s.createDatabase(ctx, conn, building, emptyTemplate); err != nil {
		return "", err
	}
	if err := s.buildTemplate(ctx, conn, building, name); err != nil {
		err = errors.Join(err, dropTemplate(ctx, conn, building))
		exists, existsErr := databaseExists(ctx, conn, name)
		if exists && existsErr == nil {
			return name, nil
		}
		return "", errors.Join(err, existsErr)
	}
	return name, nil
}

// buildTemplate installs PGMQ in a new database and makes it the template.
func (s *Server) buildTemplate(ctx context.Context, conn *pgx.Conn, building, name string) error {
	dsn, err := withDatabase(s.dsn, building)
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	_, err = pgmq.New(pool).Install(ctx)
	pool.Close()
	if err != nil {
		return err
	}

	// A database to which nobody can connect can be cloned at any time; is_template lets other roles do so.
	quoted := pgx.Identifier{building}.Sanitize()
	for _, statement := range []string{
		`alter database ` + quoted + ` with is_template true allow_connections false`,
		`alter database ` + quoted + ` rename to ` + pgx.Identifier{name}.Sanitize(),
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// currentTemplate names the template after everything that its content depends on: our schema, and the
// extension that this server offers.
func currentTemplate(ctx context.Context, conn *pgx.Conn) (string, error) {
	hash := sha256.New()
	for _, version := range schema.Versions() {
		fmt.Fprintln(hash, version.Checksum)
	}
	var extension string
	err := conn.QueryRow(ctx, `
		select coalesce(max(e.default_version), 'none')
		from pg_catalog.pg_available_extensions as e
		where e.name = 'pgmq'`).Scan(&extension)
	if err != nil {
		return "", err
	}
	fmt.Fprintln(hash, extension)
	return namePrefix + "template_" + hex.EncodeToString(hash.Sum(nil))[:16], nil
}

func databaseExists(ctx context.Context, conn *pgx.Conn, name string) (exists bool, err error) {
	err = conn.QueryRow(ctx, `
		select exists (select from pg_catalog.pg_database as d where d.datname = $1::text)`, name).Scan(&exists)
	return exists, err
}

// createDatabase clones a template. Where a checkpoint costs nothing it copies files, which takes half the time
// of writing them to the log too.
func (s *Server) createDatabase(ctx context.Context, conn *pgx.Conn, name, template string) error {
	statement := `create database ` + pgx.Identifier{name}.Sanitize() + ` template ` + pgx.Identifier{template}.Sanitize()
	if s.copyFiles {
		var choice bool // Postgres 14 has no choice: it copies files
		err := conn.QueryRow(ctx, `select current_setting('server_version_num')::integer >= 150000`).Scan(&choice)
		if err != nil {
			return err
		}
		if choice {
			statement += ` strategy file_copy`
		}
	}
	_, err := conn.Exec(ctx, statement)
	return err
}

func dropDatabase(ctx context.Context, conn *pgx.Conn, name string) error {
	quoted := pgx.Identifier{name}.Sanitize()
	_, err := conn.Exec(ctx, `drop database if exists `+quoted+` with (force)`)
	return err
}

// dropTemplate drops a database that may have become a template, which Postgres refuses to drop.
func dropTemplate(ctx context.Context, conn *pgx.Conn, name string) error {
	_, err := conn.Exec(ctx, `alter database `+pgx.Identifier{name}.Sanitize()+` with is_template false`)
	return errors.Join(err, dropDatabase(ctx, conn, name))
}

func newName() string {
	return namePrefix + strings.ToLower(rand.Text()[:16])
}

// withDatabase is dsn with the name of another database, in either form of connection string.
func withDatabase(dsn, name string) (string, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return dsn + " dbname=" + name, nil // the last one counts
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", errors.New("connection string: not a valid URL") // the error would show the password
	}
	query := u.Query()
	query.Del("dbname")
	query.Del("database")
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // Postgres knows no other space
	u.Path, u.RawPath = "/"+name, ""
	return u.String(), nil
}

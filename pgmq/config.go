package pgmq

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Config is a connection string in its parts. What is left zero comes from where Connect says; with
// nothing set, DSN is empty.
//
// Printed or logged, it shows no password.
type Config struct {
	// Host is a name, an address, or the directory of a Unix socket. Default: PGHOST, else a Unix
	// socket in one of the usual places, else localhost.
	Host string
	// Port is from 1 to 65535. Default: PGPORT, else 5432.
	Port int
	// Database is its name. Default: PGDATABASE, else the user's name.
	Database string
	// User is the role to log in as. Default: PGUSER, else the user of the operating system.
	User string
	// Password is that of User. Default: PGPASSWORD, else what the password file has, else none.
	Password string
	// SSLMode is disable, allow, prefer, require, verify-ca or verify-full. Default: PGSSLMODE, else
	// prefer.
	SSLMode string
	// ApplicationName is shown in pg_stat_activity. Default: PGAPPNAME, else none.
	ApplicationName string
	// MaxConns bounds the pool. Default: the number of CPUs, at least 4.
	MaxConns int
}

// Validate returns a *ValueError that names the first field with an invalid value. Zero values are
// valid: they mean the default.
func (cfg Config) Validate() error {
	modes := []string{"", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
	switch {
	case cfg.Port < 0 || cfg.Port > math.MaxUint16:
		return &ValueError{Name: "Port", Value: cfg.Port, Rule: "from 1 to 65535, or 0 for the default"}
	case !slices.Contains(modes, cfg.SSLMode):
		return &ValueError{Name: "SSLMode", Value: strconv.Quote(cfg.SSLMode), Rule: strings.Join(modes[1:], ", ") + ", or empty for the default"}
	case cfg.MaxConns < 0 || cfg.MaxConns > math.MaxInt32:
		return &ValueError{Name: "MaxConns", Value: cfg.MaxConns, Rule: "from 1 to 2147483647, or 0 for the default"}
	}
	for _, p := range cfg.parameters() {
		if strings.Contains(p.value, "\x00") {
			return &ValueError{Name: p.field, Value: "not shown", Rule: "without NUL bytes"}
		}
	}
	return nil
}

// DSN returns the connection string for Connect, the password included. It can be parsed if the
// configuration is valid.
func (cfg Config) DSN() string {
	var b strings.Builder
	escape := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	for _, p := range cfg.parameters() {
		if p.value == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.keyword + "='" + escape.Replace(p.value) + "'")
	}
	return b.String()
}

// String is DSN with stars for the password.
func (cfg Config) String() string {
	if cfg.Password != "" {
		cfg.Password = "***"
	}
	return cfg.DSN()
}

// Format prints String, whatever the verb: %#v and %d would look inside.
func (cfg Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, cfg.String()) }

// LogValue is String, for log/slog.
func (cfg Config) LogValue() slog.Value { return slog.StringValue(cfg.String()) }

// MarshalText is String, for whatever would print the fields, as encoding/json.
func (cfg Config) MarshalText() ([]byte, error) { return []byte(cfg.String()), nil }

type parameter struct{ field, keyword, value string }

func (cfg Config) parameters() []parameter {
	return []parameter{
		{"Host", "host", cfg.Host},
		{"Port", "port", number(cfg.Port)},
		{"Database", "dbname", cfg.Database},
		{"User", "user", cfg.User},
		{"Password", "password", cfg.Password},
		{"SSLMode", "sslmode", cfg.SSLMode},
		{"ApplicationName", "application_name", cfg.ApplicationName},
		{"MaxConns", "pool_max_conns", number(cfg.MaxConns)},
	}
}

// number is empty for 0, the default.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

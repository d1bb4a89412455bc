package pgmqtest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// An Option changes the server. With any option a server of its own is started, also where one is named by
// the environment: that one is used as it is, or not at all.
type Option func(*config)

// Durable keeps what was committed through a crash of the operating system too: fsync and full_page_writes
// on, files on disk, as in production. Without it a server is faster and survives every crash of Postgres
// itself. Use it to measure.
func Durable() Option {
	return func(c *config) {
		c.durable = true
		c.set("fsync", "on")
		c.set("full_page_writes", "on")
	}
}

// Setting sets a parameter of postgresql.conf, for example Setting("wal_level", "logical"). The last one of
// a name counts. The parameters that the package itself depends on are refused: where the server listens,
// and where its files are.
func Setting(name, value string) Option {
	return func(c *config) { c.set(name, value) }
}

// A SettingError refuses a parameter of Setting.
type SettingError struct {
	Name  string
	Value string
	Rule  string // what the name or the value violates
}

func (e *SettingError) Error() string {
	return fmt.Sprintf("pgmqtest: setting %q = %q: %s", e.Name, e.Value, e.Rule)
}

// config is what options change.
type config struct {
	// settings are parameters of postgresql.conf, in the order in which they were set first.
	settings []setting
	// durable keeps the files on disk. False: they may be in memory.
	durable bool
}

type setting struct{ name, value string }

// newConfig applies the options to the defaults and checks the result.
func newConfig(opts []Option) (config, error) {
	c := config{settings: []setting{
		// Nothing here has to survive a power cut, and commits need not wait for a disk. They still wait
		// for the log to be written (synchronous_commit), so that timing and crashes are as in production.
		{"fsync", "off"},
		{"full_page_writes", "off"},
		// Tests run in parallel, each with a pool.
		{"max_connections", "500"},
		// Files may be in memory, and old parts of the log are worth nothing.
		{"max_wal_size", "256MB"},
	}}
	for _, option := range opts {
		option(&c)
	}
	return c, c.validate()
}

func (c *config) set(name, value string) {
	name = strings.ToLower(name)
	for i := range c.settings {
		if c.settings[i].name == name {
			c.settings[i].value = value
			return
		}
	}
	c.settings = append(c.settings, setting{name, value})
}

var settingName = regexp.MustCompile(`^[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)?$`)

func (c *config) validate() error {
	reserved := []string{
		"config_file", "data_directory", "external_pid_file", "hba_file", "ident_file",
		"listen_addresses", "port", "unix_socket_directories",
	}
	for _, s := range c.settings {
		switch {
		case !settingName.MatchString(s.name):
			return &SettingError{s.name, s.value, "the name must be that of a Postgres parameter"}
		case slices.Contains(reserved, s.name):
			return &SettingError{s.name, s.value, "the parameter is chosen by this package"}
		case strings.ContainsAny(s.value, "\n\r\x00"):
			return &SettingError{s.name, s.value, "the value must be one line"}
		}
	}
	return nil
}

// file is the settings in the form of postgresql.conf.
func (c *config) file() string {
	var b strings.Builder
	escape := strings.NewReplacer(`'`, `''`, `\`, `\\`)
	for _, s := range c.settings {
		fmt.Fprintf(&b, "%s = '%s'\n", s.name, escape.Replace(s.value))
	}
	return b.String()
}

// arguments are the settings in the form of postgres's command line.
func (c *config) arguments() []string {
	var args []string
	for _, s := range c.settings {
		args = append(args, "-c", s.name+"="+s.value)
	}
	return args
}

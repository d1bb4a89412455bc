package pgmq

import (
	"context"
	"strconv"

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

// Version says which PGMQ the database has, and changes nothing. It may be newer than this library
// knows. Without PGMQ it fails with ErrNotInstalled, or with ErrUnknownSchema where a schema of that name is
// something else.
func (c *Client) Version(ctx context.Context) (Version, error) {
	op := operation{name: "version"}
	s, err := c.schemaState(ctx)
	if err != nil {
		return Version{}, c.wrap(ctx, op, err)
	}
	v, err := s.installed()
	return v, op.fail(err)
}

// installed is what there is.
func (s schemaState) installed() (Version, error) {
	switch n := s.version(); {
	case s.extension != "":
		return Version{Kind: KindExtension, Name: s.extension}, nil
	case n > 0:
		return Version{Kind: KindEmbedded, Number: n, Name: strconv.Itoa(n)}, nil
	case s.hasPGMQ:
		return Version{Kind: KindForeign}, nil
	case !s.isEmpty:
		return Version{}, ErrUnknownSchema
	default:
		return Version{}, ErrNotInstalled
	}
}

// newestVersion is that of the embedded schema this library knows.
func newestVersion() int { return len(schema.Versions()) }

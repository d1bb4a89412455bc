//go:build unix

package pgmqtest

import (
	"errors"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// detached is for a process that signals to this one's group (an interrupt typed at the terminal) do not reach.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true}
}

// detachedAs is detached, running as another user. Nil is the current one.
func detachedAs(account *user.User) (*syscall.SysProcAttr, error) {
	attributes := detached()
	if account == nil {
		return attributes, nil
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attributes, nil
}

// serverAccount is whom Postgres runs as: it refuses to run as root. Nil is the current user.
func serverAccount() (*user.User, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		if account, err := user.Lookup(name); err == nil {
			return account, nil
		}
	}
	return nil, errors.New("the current user is root, as whom Postgres refuses to run, and there is no user postgres or nobody")
}

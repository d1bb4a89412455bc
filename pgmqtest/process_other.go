//go:build !unix

package pgmqtest

import (
	"os/user"
	"syscall"
)

func detached() *syscall.SysProcAttr { return nil }

func detachedAs(*user.User) (*syscall.SysProcAttr, error) { return nil, nil }

func serverAccount() (*user.User, error) { return nil, nil }

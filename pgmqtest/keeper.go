package pgmqtest

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// A keeper is a shell process that owns a directory and what is started in it. It ends all of it when this
// process closes its end of a pipe, which the operating system does for a process that is killed.
//
// It needs no goroutine here, so that it does not show up in leak checks.
type keeper struct {
	dir string

	process *exec.Cmd
	mu      sync.Mutex // one command at a time
	input   *os.File
	answers *bufio.Reader
	output  *os.File // what answers reads from
}

//go:embed keeper.sh
var keeperScript string

// keepers holds every open keeper: one that only the garbage collector sees would have its pipe closed,
// and with it the server that somebody still uses.
var keepers sync.Map

// startKeeper starts a keeper that runs everything as the user of attributes, in a new directory below parent.
// farewell is the line of shell that ends it all.
func startKeeper(attributes *syscall.SysProcAttr, parent, farewell string) (*keeper, error) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		return nil, err
	}

	theirInput, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	output, theirOutput, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirInput.Close(), input.Close())
	}

	// Its standard error is the null device: go test waits for everyone who holds the test's own. It ends by
	// itself, so no context ends it.
	process := exec.CommandContext(context.Background(), shell, "-c", keeperScript, "pgmqtest", strings.TrimRight(parent, "/"), farewell)
	process.Dir = "/"
	process.Env = keeperEnvironment()
	process.Stdin, process.Stdout = theirInput, theirOutput
	process.SysProcAttr = attributes
	err = errors.Join(process.Start(), theirInput.Close(), theirOutput.Close())
	if err != nil {
		return nil, errors.Join(err, input.Close(), output.Close())
	}

	k := &keeper{process: process, input: input, output: output, answers: bufio.NewReader(output)}
	keepers.Store(k, nil)
	directory, err := k.answers.ReadString('\n')
	if err != nil {
		err = fmt.Errorf("create a directory in %s: %w", parent, err)
		return nil, errors.Join(err, k.close())
	}
	k.dir = strings.TrimSuffix(directory, "\n")
	return k, nil
}

// run has the keeper execute one line of shell in its directory. A command under way is not interrupted, so
// it must end by itself.
func (k *keeper) run(ctx context.Context, command string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if strings.ContainsAny(command, "\n\x00") {
		return fmt.Errorf("command %q: must be one line", command)
	}
	if _, err := k.input.WriteString(command + "\n"); err != nil {
		return fmt.Errorf("keeper of %s is gone: %w", k.dir, err)
	}
	answer, err := k.answers.ReadString('\n')
	if err != nil {
		return fmt.Errorf("keeper of %s is gone: %w", k.dir, err)
	}
	status, err := strconv.Atoi(strings.TrimSuffix(answer, "\n"))
	if err != nil {
		return fmt.Errorf("keeper of %s: %w", k.dir, err)
	}
	if status != 0 {
		output, err := os.ReadFile(filepath.Join(k.dir, "output"))
		return errors.Join(&commandError{command, status, strings.TrimSpace(string(output))}, err)
	}
	return nil
}

// close has the keeper tidy up, and waits for it.
func (k *keeper) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, open := keepers.LoadAndDelete(k); !open {
		return nil
	}
	err := errors.Join(k.input.Close(), k.process.Wait(), k.output.Close())
	if err != nil {
		return fmt.Errorf("keeper of %s: %w", k.dir, err)
	}
	return nil
}

// keeperEnvironment is the environment without what would change how Postgres behaves.
func keeperEnvironment() []string {
	environment := []string{"LC_ALL=C"}
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "LC_") {
			continue
		}
		environment = append(environment, variable)
	}
	return environment
}

// A commandError is a command that the keeper ran in vain.
type commandError struct {
	command string
	status  int
	output  string
}

func (e *commandError) Error() string {
	return fmt.Sprintf("%s: exit status %d: %s", e.command, e.status, e.output)
}

// quote makes one word of shell of any string.
func quote(word string) string {
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

package pgmqtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"
)

// Image is the image from which a server is started in Docker: Postgres with the PGMQ extension.
const Image = "ghcr.io/pgmq/pg17-pgmq:v1.13.0"

// A container is an engine: Postgres in Docker.
type container struct {
	keeper   *keeper // removes the container
	pool     *dockertest.Pool
	name     string
	host     string
	port     int
	password string
}

// dockerDaemon is a Docker that answered.
type dockerDaemon struct {
	pool *dockertest.Pool
	// host is where it publishes ports, and bind the address on which it is to publish them.
	host, bind string
}

// findDocker asks the docker command which daemon it talks to, so that contexts and DOCKER_HOST count. The
// command is needed later too: it removes the container after this process is gone.
func findDocker(ctx context.Context) (*dockerDaemon, error) {
	output, err := exec.CommandContext(ctx, "docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}").Output()
	if err != nil {
		return nil, fmt.Errorf("docker context inspect: %w", err)
	}
	endpoint := strings.TrimSpace(string(output))
	pool, err := dockertest.NewPool(endpoint)
	if err != nil {
		return nil, fmt.Errorf("docker at %s: %w", endpoint, err)
	}
	if err := pool.Client.PingWithContext(ctx); err != nil {
		return nil, fmt.Errorf("docker at %s: %w", endpoint, err)
	}
	if u, err := url.Parse(endpoint); err == nil && u.Scheme == "tcp" {
		return &dockerDaemon{pool, u.Hostname(), "0.0.0.0"}, nil
	}
	return &dockerDaemon{pool, "127.0.0.1", "127.0.0.1"}, nil
}

func newContainer(ctx context.Context, daemon *dockerDaemon, c config) (_ *container, err error) {
	repository, tag, _ := strings.Cut(Image, ":")
	if err := pullImage(ctx, daemon.pool, repository, tag); err != nil {
		return nil, err
	}

	name := "pgmqtest-" + strings.ToLower(rand.Text()[:16])
	k, err := startKeeper(detached(), os.TempDir(), shellLine([]string{"docker", "rm", "--force", "--volumes", name}))
	if err != nil {
		return nil, err
	}
	ct := &container{keeper: k, pool: daemon.pool, name: name, host: daemon.host, password: rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, ct.close())
		}
	}()

	// The port is chosen here, because Docker would choose another one at each start. It may be taken by
	// somebody else before Docker gets there.
	for attempt := 0; ; attempt++ {
		if ct.port, err = freePort(ctx); err != nil {
			return nil, err
		}
		_, err = ct.pool.RunWithOptions(&dockertest.RunOptions{
			Repository: repository,
			Tag:        tag,
			Name:       name,
			Env:        []string{"POSTGRES_PASSWORD=" + ct.password},
			Cmd:        append([]string{"postgres"}, c.arguments()...),
			PortBindings: map[docker.Port][]docker.PortBinding{
				"5432/tcp": {{HostIP: daemon.bind, HostPort: strconv.Itoa(ct.port)}},
			},
		}, func(host *docker.HostConfig) {
			host.PublishAllPorts = false
		})
		if err == nil {
			return ct, ct.waitReady(ctx)
		}
		if attempt == 10 || !isPortTaken(err) {
			return nil, err
		}
		if err := ct.pool.RemoveContainerByName(name); err != nil {
			return nil, err
		}
	}
}

func pullImage(ctx context.Context, pool *dockertest.Pool, repository, tag string) error {
	_, err := pool.Client.InspectImage(Image)
	if !errors.Is(err, docker.ErrNoSuchImage) {
		return err
	}
	options := docker.PullImageOptions{Repository: repository, Tag: tag, Context: ctx}
	return pool.Client.PullImage(options, docker.AuthConfiguration{})
}

func isPortTaken(err error) bool {
	text := err.Error()
	return strings.Contains(text, "port is already allocated") || strings.Contains(text, "address already in use")
}

func (ct *container) dsn() string {
	return fmt.Sprintf("postgres://postgres:%s@%s:%d/postgres?sslmode=disable", ct.password, ct.host, ct.port)
}

func (ct *container) start(ctx context.Context) error {
	err := ct.pool.Client.StartContainerWithContext(ct.name, nil, ctx)
	var running *docker.ContainerAlreadyRunning
	if err != nil && !errors.As(err, &running) {
		return err
	}
	return ct.waitReady(ctx)
}

// stop signals Postgres itself: what docker stop would send is not for Postgres to choose.
func (ct *container) stop(ctx context.Context, how shutdown) error {
	signal := docker.SIGINT
	if how == immediate {
		signal = docker.SIGQUIT
	}
	err := ct.pool.Client.KillContainer(docker.KillContainerOptions{ID: ct.name, Signal: signal, Context: ctx})
	var stopped *docker.ContainerNotRunning
	if errors.As(err, &stopped) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = ct.pool.Client.WaitContainerWithContext(ct.name, ctx)
	return err
}

func (ct *container) restartCommand() []string {
	// A container that does not run has no top, and will never be ready.
	return []string{"sh", "-c", strings.ReplaceAll(`{
		docker kill --signal INT NAME; docker wait NAME; docker start NAME || exit
		until docker exec NAME pg_isready --quiet --host 127.0.0.1; do docker top NAME || exit; sleep 0.1; done
	} >/dev/null`, "NAME", ct.name)}
}

func (ct *container) close() error { return ct.keeper.close() }

// waitReady waits until the server accepts connections over TCP. While it recovers it answers with an error,
// while the image initialises itself not at all. A container that ended will never answer.
func (ct *container) waitReady(ctx context.Context) error {
	for {
		conn, err := pgx.Connect(ctx, ct.dsn())
		if err == nil {
			return conn.Close(ctx)
		}
		state, inspectErr := ct.pool.Client.InspectContainerWithContext(ct.name, ctx)
		if inspectErr != nil {
			return errors.Join(err, inspectErr)
		}
		if !state.State.Running {
			return errors.Join(err, ct.log(ctx))
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err(), ct.log(context.WithoutCancel(ctx)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// log is the end of what the server printed, as an error.
func (ct *container) log(ctx context.Context) error {
	var output strings.Builder
	err := ct.pool.Client.Logs(docker.LogsOptions{
		Context: ctx, Container: ct.name, OutputStream: &output, ErrorStream: &output, Stdout: true, Stderr: true, Tail: "40",
	})
	if err != nil {
		return err
	}
	return fmt.Errorf("log of the server: %s", strings.TrimSpace(output.String()))
}

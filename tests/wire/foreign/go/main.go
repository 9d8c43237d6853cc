// The rows of tests/wire/foreign/__init__.py by golang.org/x/crypto/ssh and github.com/pkg/sftp.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

type seen = map[string]any

var (
	port, user, key, directory, echoPort = os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	exchanges                            int
)

func login() (*ssh.Client, error) {
	pem, err := os.ReadFile(key)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return nil, err
	}
	config := &ssh.ClientConfig{
		User: user,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		// Called in every key exchange, so that it counts them.
		HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error { exchanges++; return nil },
	}
	config.RekeyThreshold = 256 * 1024 // the least that the package takes
	return ssh.Dial("tcp", "127.0.0.1:"+port, config)
}

func status(err error) int {
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		return exit.ExitStatus()
	}
	if err != nil {
		return -1
	}
	return 0
}

// run feeds the command by StdinPipe, whose Close sends an EOF of which Session sends another.
func run(client *ssh.Client, command, input string) (seen, error) {
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	defer session.Close()
	var out, errors bytes.Buffer
	session.Stdout, session.Stderr = &out, &errors
	stdin, err := session.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := session.Start(command); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(stdin, input); err != nil {
		return nil, err
	}
	stdin.Close()
	stdin.Close()
	ended := session.Wait()
	return seen{"out": out.String(), "err": errors.String(), "status": status(ended)}, nil
}

func pty(client *ssh.Client) (seen, error) {
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	defer session.Close()
	if err := session.RequestPty("vt100", 33, 91, ssh.TerminalModes{}); err != nil {
		return nil, err
	}
	stdin, _ := session.StdinPipe()
	stdout, _ := session.StdoutPipe()
	if err := session.Shell(); err != nil {
		return nil, err
	}
	fmt.Fprint(stdin, "stty size\n")
	var shown strings.Builder
	piece := make([]byte, 4096)
	for !strings.Contains(shown.String(), "33 91") {
		n, err := stdout.Read(piece)
		if err != nil {
			return nil, err
		}
		shown.Write(piece[:n])
	}
	if err := session.WindowChange(40, 120); err != nil {
		return nil, err
	}
	fmt.Fprint(stdin, "stty size; echo $TERM; exit 4\n")
	if _, err := io.Copy(&shown, stdout); err != nil {
		return nil, err
	}
	return seen{"shown": shown.String(), "status": status(session.Wait())}, nil
}

func symlink(client *ssh.Client) (seen, error) {
	files, err := sftp.NewClient(client)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	if err := files.Symlink("a-target", directory+"/link"); err != nil {
		return nil, err
	}
	target, err := files.ReadLink(directory + "/link")
	return seen{"target": target}, err
}

func transfer(client *ssh.Client) (seen, error) {
	files, err := sftp.NewClient(client)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	local, err := os.ReadFile(directory + "/payload")
	if err != nil {
		return nil, err
	}
	put, err := files.Create(directory + "/put")
	if err != nil {
		return nil, err
	}
	if _, err := put.ReadFrom(bytes.NewReader(local)); err != nil {
		return nil, err
	}
	if err := put.Close(); err != nil {
		return nil, err
	}
	source, err := files.Open(directory + "/put")
	if err != nil {
		return nil, err
	}
	defer source.Close()
	got, err := io.ReadAll(source)
	if err != nil {
		return nil, err
	}
	return seen{}, os.WriteFile(directory+"/got", got, 0o644)
}

func localForward(client *ssh.Client) (seen, error) {
	link, err := client.Dial("tcp", "127.0.0.1:"+echoPort)
	if err != nil {
		return nil, err
	}
	defer link.Close()
	payload, err := os.ReadFile(directory + "/payload")
	if err != nil {
		return nil, err
	}
	if _, err := link.Write(payload[:65536]); err != nil {
		return nil, err
	}
	if err := link.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return nil, err
	}
	back, err := io.ReadAll(link)
	digest := sha256.Sum256(back)
	return seen{"digest": hex.EncodeToString(digest[:])}, err
}

func remoteForward(client *ssh.Client) (seen, error) {
	listener, err := client.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	go func() {
		channel, err := listener.Accept()
		if err != nil {
			return
		}
		io.Copy(channel, channel)
		channel.Close()
	}()
	link, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return nil, err
	}
	defer link.Close()
	fmt.Fprint(link, "hello")
	link.(*net.TCPConn).CloseWrite()
	heard, err := io.ReadAll(link)
	return seen{"heard": string(heard)}, err
}

func rekey(client *ssh.Client) (seen, error) {
	before := exchanges
	if _, err := run(client, "head -c 1000000 /dev/zero", ""); err != nil {
		return nil, err
	}
	after, err := run(client, "echo after", "")
	if err != nil {
		return nil, err
	}
	return seen{"out": after["out"], "exchanges": exchanges - before}, nil
}

func keepalive(client *ssh.Client) (seen, error) {
	for range 3 {
		if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			return nil, err
		}
	}
	return run(client, "echo kept", "")
}

func tell(row string, told seen, err error) {
	if err != nil {
		told = seen{"error": err.Error()}
	}
	told["row"] = row
	json.NewEncoder(os.Stdout).Encode(told)
}

func main() {
	client, err := login()
	tell("login", seen{}, err)
	if err != nil {
		os.Exit(1)
	}
	defer client.Close()
	told, err := run(client, "cat; echo err >&2; exit 7", "out\n")
	tell("exec", told, err)
	for _, row := range []struct {
		name string
		made func(*ssh.Client) (seen, error)
	}{
		{"pty", pty}, {"symlink", symlink}, {"transfer", transfer}, {"local_forward", localForward},
		{"remote_forward", remoteForward}, {"rekey", rekey}, {"keepalive", keepalive},
	} {
		told, err := row.made(client)
		tell(row.name, told, err)
	}
}

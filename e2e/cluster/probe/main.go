// lab-probe: the client and server of the lab's own tests, one static program.
//
//	lab-probe serve [--echo :7000] [--http :8080]   echo what comes; answer HTTP with this pod's name
//	lab-probe dial [--send TEXT] HOST:PORT           prints `connected`, or why not in one word
//	lab-probe dial --bytes N HOST:PORT               sends N bytes to an echo and takes them back; prints `connected`
//	                                                 and the milliseconds
//	lab-probe get URL                                prints the status and the body
//	lab-probe resolve NAME                           prints the addresses
//
// The outcome is the exit code and the first word on stdout, so that a test never reads an error message.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	timeout := flags.Duration("timeout", 3*time.Second, "give up after this long")
	echo := flags.String("echo", ":7000", "where serve echoes")
	web := flags.String("http", ":8080", "where serve answers HTTP")
	send := flags.String("send", "", "what dial sends and expects back")
	count := flags.Int64("bytes", 0, "how many bytes dial sends and expects back")
	_ = flags.Parse(os.Args[2:])
	commands := map[string]func() error{
		"serve": func() error { return serve(*echo, *web) },
		"dial": func() error {
			if *count > 0 {
				return echoed(flags.Arg(0), *count, *timeout)
			}
			return dial(flags.Arg(0), *send, *timeout)
		},
		"get":     func() error { return get(flags.Arg(0), *timeout) },
		"resolve": func() error { return resolve(flags.Arg(0), *timeout) },
	}
	command, known := commands[os.Args[1]]
	if !known || (os.Args[1] != "serve" && flags.NArg() != 1) {
		usage()
	}
	if err := command(); err != nil {
		fmt.Println(outcome(err))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "lab-probe serve | dial HOST:PORT | get URL | resolve NAME; --help after each")
	os.Exit(64)
}

// outcome is the one word that tests compare.
func outcome(err error) string {
	var dns *net.DNSError
	var network net.Error
	switch {
	case errors.As(err, &dns):
		return "unresolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES):
		return "prohibited"
	case errors.As(err, &network) && network.Timeout():
		return "timeout"
	}
	return "failed"
}

func serve(echo, web string) error {
	listener, err := net.Listen("tcp", echo)
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(connection, connection)
				_ = connection.Close()
			}()
		}
	}()
	host, _ := os.Hostname()
	handler := http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		_, _ = fmt.Fprintf(answer, "host=%s remote=%s path=%s\n", host, request.RemoteAddr, request.URL.Path)
	})
	server := &http.Server{Addr: web, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ended.Done()
		_ = server.Close()
	}()
	fmt.Println("serving", echo, web)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func dial(address, send string, timeout time.Duration) error {
	connection, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return err
	}
	defer connection.Close()
	if send != "" {
		_ = connection.SetDeadline(time.Now().Add(timeout))
		if _, err := io.WriteString(connection, send); err != nil {
			return err
		}
		back := make([]byte, len(send))
		if _, err := io.ReadFull(connection, back); err != nil {
			return err
		}
		if string(back) != send {
			return fmt.Errorf("sent %q, got %q back", send, back)
		}
	}
	fmt.Println("connected", connection.RemoteAddr())
	return nil
}

// echoed sends and takes back at once, so that each direction carries its bytes in the same time.
func echoed(address string, count int64, timeout time.Duration) error {
	connection, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return err
	}
	defer connection.Close()
	began := time.Now()
	_ = connection.SetDeadline(began.Add(timeout))
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(connection, zeros{}, count)
		sent <- err
	}()
	if _, err := io.CopyN(io.Discard, connection, count); err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	fmt.Println("connected", time.Since(began).Milliseconds())
	return nil
}

type zeros struct{}

func (zeros) Read(into []byte) (int, error) { return len(into), nil }

func get(url string, timeout time.Duration) error {
	client := &http.Client{Timeout: timeout}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	fmt.Printf("%d %s\n", answer.StatusCode, strings.TrimSpace(string(body)))
	return nil
}

func resolve(name string, timeout time.Duration) error {
	context, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(context, name)
	if err != nil {
		return err
	}
	sort.Strings(addresses)
	fmt.Println("resolved", strings.Join(addresses, " "))
	return nil
}

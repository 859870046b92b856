// lab-probe: the client and server of the lab's own tests, one static program.
//
//	lab-probe serve [--echo :7000] [--http :8080]   echo what comes; answer HTTP with this pod's name
//	lab-probe dial [--send TEXT] HOST:PORT           prints `connected`, or why not in one word
//	lab-probe dial --bytes N HOST:PORT               sends N bytes to an echo and takes them back; prints `connected`
//	                                                 and the milliseconds
//	lab-probe hold HOST:PORT                         keeps a stream to an echo busy until stdin says anything or ends: prints
//	                                                 `connected` when a byte has come back, and at the end how it ended,
//	                                                 the bytes that came back, those that were sent, and when the last
//	                                                 one came (ms of the Unix time)
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
		"hold":    func() error { return hold(flags.Arg(0), *timeout) },
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
	fmt.Fprintln(os.Stderr, "lab-probe serve | dial HOST:PORT | hold HOST:PORT | get URL | resolve NAME; --help after each")
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

func dial(address, word string, timeout time.Duration) error {
	connection, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return err
	}
	defer connection.Close()
	if word != "" {
		_ = connection.SetDeadline(time.Now().Add(timeout))
		if _, err := io.WriteString(connection, word); err != nil {
			return err
		}
		back := make([]byte, len(word))
		if _, err := io.ReadFull(connection, back); err != nil {
			return err
		}
		if string(back) != word {
			return fmt.Errorf("sent %q, got %q back", word, back)
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

// between two bytes of a held stream: well below the second that promises are measured in.
const beat = 10 * time.Millisecond

// hold sends a byte a beat and reads what comes back, until it is told to end or the stream ends. Its last line is
// `finished|reset|… BACK SENT LAST`: only a stream that was ended here and brought back every byte is `finished`.
func hold(address string, timeout time.Duration) error {
	connection, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return err
	}
	defer connection.Close()
	ended, over := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		close(ended)
	}()
	sent := make(chan sending, 1)
	go func() { sent <- send(connection.(*net.TCPConn), ended, over, timeout) }()
	back, last, failure := int64(0), time.Now(), error(nil)
	for buffer := make([]byte, 4096); failure == nil; {
		var count int
		if count, failure = connection.Read(buffer); count > 0 {
			if back == 0 {
				fmt.Println("connected")
			}
			back, last = back+int64(count), time.Now()
		}
	}
	close(over)
	all, how := <-sent, outcome(failure)
	switch {
	case !errors.Is(failure, io.EOF):
	case all.failure != nil: // the system tells a reset once, to whoever asks first
		how = outcome(all.failure)
	case all.asked && back == all.count:
		how = "finished"
	default: // an end that nobody here asked for
		how = "short"
	}
	fmt.Println(how, back, all.count, last.UnixMilli())
	return nil
}

// sending is what was sent, and why no more.
type sending struct {
	count   int64
	asked   bool
	failure error
}

// send writes a byte a beat until it is told to end, or all is over.
func send(connection *net.TCPConn, ended, over <-chan struct{}, timeout time.Duration) (all sending) {
	ticks := time.NewTicker(beat)
	defer ticks.Stop()
	for {
		select {
		case <-over:
			return all
		case <-ended:
			all.asked = true
			_ = connection.CloseWrite()
			_ = connection.SetReadDeadline(time.Now().Add(timeout))
			return all
		case <-ticks.C:
			if _, all.failure = connection.Write([]byte{'.'}); all.failure != nil {
				return all
			}
			all.count++
		}
	}
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

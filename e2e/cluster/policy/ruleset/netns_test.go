package ruleset

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// netns is a network namespace without a name: it ends with its file, also when the test process is killed, and
// every veth and table in it ends with it.
type netns struct{ file *os.File }

func newNetns(t *testing.T) netns {
	t.Helper()
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result)
	go func() {
		// Never unlocked: the thread has left the process's namespace and has to end with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{nil, err}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		made <- result{file, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.file.Close() })
	ns := netns{r.file}
	ns.run(t, "", "ip link set lo up")
	return ns
}

// do runs f inside of the namespace. Sockets that f opens and commands that it starts stay there.
func (n netns) do(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		f()
	}()
	<-done
}

func (n netns) run(t *testing.T, input, line string) {
	t.Helper()
	words := strings.Fields(line)
	n.do(func() {
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Stdin = strings.NewReader(input)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s%s", line, err, out, input)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

func (n netns) load(t *testing.T, rules Ruleset) {
	t.Helper()
	n.run(t, rules.NFT(), "nft -f -")
}

// lab is one node with the world's pods and the outside around it, wired as the CNI plugin ptp does.
type lab struct {
	node netns
	ends map[netip.Addr]netns
}

const (
	gateway4 = "10.244.0.1"
	gateway6 = "fd00:10:244::fffe"
)

func newLab(t *testing.T, w testWorld) lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: real packets need root")
	}
	for _, tool := range []string{"nft", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skipped: real packets need %s", tool)
		}
	}
	l := lab{newNetns(t), map[netip.Addr]netns{}}
	l.node.do(func() {
		for path, value := range map[string]string{
			"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/default/accept_dad": "0",
			// Else the kernel leaves out refusals when many are due: no limit for unreachable (3 and, in IPv6, 1).
			"net/ipv4/icmp_ratemask": "0", "net/ipv6/icmp/ratemask": "2",
		} {
			if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
				t.Error(err)
			}
		}
	})
	link := 0
	for _, addrs := range w.ends() {
		end := newNetns(t)
		device := fmt.Sprintf("veth%d", link)
		link++
		l.node.run(t, "", fmt.Sprintf("ip link add %s type veth peer name eth0 netns /proc/%d/fd/%d", device, os.Getpid(), end.file.Fd()))
		var here, there strings.Builder
		fmt.Fprintf(&here, "link set %s up\naddr add %s/32 dev %s\naddr add %s/128 dev %s nodad\n", device, gateway4, device, gateway6, device)
		there.WriteString("link set eth0 up\n")
		for _, addr := range addrs {
			fmt.Fprintf(&here, "route add %s dev %s\n", addr, device)
			fmt.Fprintf(&there, "addr add %s dev eth0 %s\n", netip.PrefixFrom(addr, addr.BitLen()), map[bool]string{false: "nodad"}[addr.Is4()])
			l.ends[addr] = end
		}
		fmt.Fprintf(&there, "route add %s dev eth0\nroute add default via %s dev eth0\n", gateway4, gateway4)
		fmt.Fprintf(&there, "route add %s dev eth0\nroute add default via %s dev eth0\n", gateway6, gateway6)
		l.node.run(t, here.String(), "ip -batch -")
		end.run(t, there.String(), "ip -batch -")
		end.serve(t)
	}
	l.node.serve(t)
	return l
}

// serve listens on every port that cases speak of, echoing what it gets.
func (n netns) serve(t *testing.T) {
	t.Helper()
	for _, port := range []string{":80", ":81", ":82"} {
		var tcp net.Listener
		var udp net.PacketConn
		var errTCP, errUDP error
		n.do(func() {
			tcp, errTCP = net.Listen("tcp", port)
			udp, errUDP = net.ListenPacket("udp", port)
		})
		if err := errors.Join(errTCP, errUDP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tcp.Close(); udp.Close() })
		go func() {
			for {
				conn, err := tcp.Accept()
				if err != nil {
					return
				}
				go echo(conn)
			}
		}()
		go func() {
			buf := make([]byte, 64)
			for {
				n, from, err := udp.ReadFrom(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_, _ = udp.WriteTo(buf[:n], from)
				}
			}
		}()
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 64)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

// patience bounds what should come at once; reaching it is always a failure.
const patience = 10 * time.Second

// open connects from within the namespace and gets one echo.
func (n netns) open(f flow) (net.Conn, error) {
	var conn net.Conn
	var err error
	n.do(func() {
		dialer := net.Dialer{Timeout: patience}
		if f.src.IsValid() {
			dialer.LocalAddr = local(f)
		}
		conn, err = dialer.Dial(f.protocol, netip.AddrPortFrom(f.dst, f.port).String())
	})
	if err != nil {
		return nil, err
	}
	if err := say(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func local(f flow) net.Addr {
	if f.protocol == "udp" {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.src, 0))
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.src, 0))
}

func say(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

// reaches tells whether a connection came about. A refusal has to be the table's own, as the client sees it.
func (n netns) reaches(f flow) (bool, error) {
	conn, err := n.open(f)
	switch {
	case err == nil:
		return true, conn.Close()
	case errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EACCES):
		return false, nil
	default:
		return false, err
	}
}

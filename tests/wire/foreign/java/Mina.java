import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyPair;
import java.time.Duration;
import java.util.EnumSet;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.sshd.client.SshClient;
import org.apache.sshd.client.channel.ChannelExec;
import org.apache.sshd.client.channel.ChannelShell;
import org.apache.sshd.client.channel.ClientChannel;
import org.apache.sshd.client.channel.ClientChannelEvent;
import org.apache.sshd.client.session.ClientSession;
import org.apache.sshd.common.keyprovider.FileKeyPairProvider;
import org.apache.sshd.common.util.net.SshdSocketAddress;
import org.apache.sshd.core.CoreModuleProperties;
import org.apache.sshd.server.forward.AcceptAllForwardingFilter;
import org.apache.sshd.sftp.client.SftpClient;
import org.apache.sshd.sftp.client.SftpClientFactory;

/** The rows of tests/wire/foreign/__init__.py by Apache MINA SSHD. */
final class Mina {
    private static final Duration PATIENCE = Duration.ofSeconds(30);
    private static final String HALF_CLOSED = "the link stays open meanwhile; half closed, the library loses its tail, with `sshd` too";
    private static ClientSession session;

    private static Map<String, Object> run(String command, String input) throws Exception {
        try (ChannelExec channel = session.createExecChannel(command)) {
            channel.open().verify(PATIENCE);
            if (!input.isEmpty()) {
                channel.getInvertedIn().write(input.getBytes(StandardCharsets.UTF_8));
                channel.getInvertedIn().close();
            }
            String out = Rows.text(channel.getInvertedOut());
            String err = Rows.text(channel.getInvertedErr());
            return Rows.seen("out", out, "err", err, "status", status(channel));
        }
    }

    private static Integer status(ClientChannel channel) {
        channel.waitFor(EnumSet.of(ClientChannelEvent.CLOSED), PATIENCE);
        return channel.getExitStatus();
    }

    private static Map<String, Object> pty() throws Exception {
        try (ChannelShell channel = session.createShellChannel()) {
            channel.setPtyType("vt100");
            channel.setPtyColumns(91);
            channel.setPtyLines(33);
            channel.open().verify(PATIENCE);
            OutputStream keys = channel.getInvertedIn();
            keys.write("stty size\n".getBytes(StandardCharsets.UTF_8));
            keys.flush();
            String shown = Rows.until(channel.getInvertedOut(), "33 91");
            channel.sendWindowChange(120, 40);
            keys.write("stty size; echo $TERM; exit 4\n".getBytes(StandardCharsets.UTF_8));
            keys.flush();
            shown += Rows.text(channel.getInvertedOut());
            return Rows.seen("shown", shown, "status", status(channel));
        }
    }

    private static Map<String, Object> symlink(Rows rows) throws Exception {
        try (SftpClient sftp = SftpClientFactory.instance().createSftpClient(session)) {
            sftp.symLink(rows.directory + "/link", "a-target");
            return Rows.seen("target", sftp.readLink(rows.directory + "/link"));
        }
    }

    private static Map<String, Object> transfer(Rows rows) throws Exception {
        try (SftpClient sftp = SftpClientFactory.instance().createSftpClient(session)) {
            sftp.put(Path.of(rows.directory, "payload"), rows.directory + "/put");
            try (InputStream source = sftp.read(rows.directory + "/put")) {
                Files.copy(source, Path.of(rows.directory, "got"));
            }
            return Rows.seen();
        }
    }

    public static void main(String[] arguments) throws Exception {
        Rows rows = new Rows(arguments);
        AtomicInteger exchanges = new AtomicInteger();
        try (SshClient client = SshClient.setUpDefaultClient()) {
            // Asked in every key exchange, so that it counts them.
            client.setServerKeyVerifier((talk, address, key) -> {
                exchanges.incrementAndGet();
                return true;
            });
            // A request with an answer, without which the session is closed.
            CoreModuleProperties.HEARTBEAT_INTERVAL.set(client, Duration.ofMillis(500));
            CoreModuleProperties.HEARTBEAT_NO_REPLY_MAX.set(client, 3);
            client.setForwardingFilter(AcceptAllForwardingFilter.INSTANCE); // by default it refuses its own forwards
            client.start();
            session = client.connect(rows.user, "127.0.0.1", rows.port).verify(PATIENCE).getSession();
            for (KeyPair pair : new FileKeyPairProvider(Path.of(rows.key)).loadKeys(session)) {
                session.addPublicKeyIdentity(pair);
            }
            session.auth().verify(PATIENCE);
            rows.row("login", () -> Rows.seen());
            rows.row("exec", () -> run("cat; echo err >&2; exit 7", "out\n"));
            rows.row("pty", Mina::pty);
            rows.row("symlink", () -> symlink(rows));
            rows.row("transfer", () -> transfer(rows));
            SshdSocketAddress anyPort = new SshdSocketAddress("127.0.0.1", 0);
            SshdSocketAddress echo = new SshdSocketAddress("127.0.0.1", rows.echoPort);
            rows.row("local_forward", () -> {
                int bound = session.startLocalPortForwarding(anyPort, echo).getPort();
                return Rows.seen("digest", Rows.digest(Rows.echoed(bound, rows.piece())), "note", HALF_CLOSED);
            });
            rows.row("remote_forward", () -> {
                SshdSocketAddress bound = session.startRemotePortForwarding(anyPort, echo);
                byte[] heard = Rows.through(bound.getPort(), "hello".getBytes());
                session.stopRemotePortForwarding(bound);
                return Rows.seen("heard", new String(heard, StandardCharsets.UTF_8));
            });
            rows.row("rekey", () -> {
                int before = exchanges.get();
                session.reExchangeKeys().verify(PATIENCE);
                return Rows.seen("out", run("echo after", "").get("out"), "exchanges", exchanges.get() - before);
            });
            rows.row("keepalive", () -> run("sleep 3; echo kept", ""));
            session.close(false).await(PATIENCE);
        }
    }
}

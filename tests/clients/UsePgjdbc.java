import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

/** pgjdbc: parameters, server-side prepared statements, a transaction that rolls back, errors. */
class UsePgjdbc {
    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static String update(Connection db, String flow) throws SQLException {
        String sql = "select evaluated, upserted, deleted, failed from coco.update(?)";
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            statement.setString(1, flow);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                return rows.getLong(1) + " " + rows.getLong(2) + " " + rows.getLong(3) + " " + rows.getLong(4);
            }
        }
    }

    public static void main(String[] arguments) throws SQLException {
        // A statement is prepared on the server when it runs for the second time.
        String url = arguments[0] + "&prepareThreshold=2";
        try (Connection db = DriverManager.getConnection(url); Statement plain = db.createStatement()) {
            plain.execute("create table jdbc_source (id int primary key, body text not null)");
            plain.execute("insert into jdbc_source values (1, 'one'), (2, 'two')");
            String declare = "select coco.create_flow(?, source => cast(cast(? as text) as regclass), query => ?,"
                    + " target => ?, key => ?)";
            try (PreparedStatement statement = db.prepareStatement(declare)) {
                statement.setString(1, "jdbc");
                statement.setString(2, "jdbc_source");
                statement.setString(3, "select id, upper(body) as body from jdbc_source");
                statement.setString(4, "jdbc_target");
                statement.setArray(5, db.createArrayOf("text", new String[] {"id"}));
                statement.execute();
            }
            check(update(db, "jdbc").equals("2 2 0 0"), "the first update");
            for (int n = 0; n < 8; n++) {
                plain.execute("update jdbc_source set body = 'one " + n + "' where id = 1");
                check(update(db, "jdbc").equals("1 1 0 0"), "update " + n);
            }
            db.setAutoCommit(false);
            plain.execute("delete from jdbc_source where id = 2");
            check(update(db, "jdbc").equals("0 0 1 0"), "an update in a transaction");
            db.rollback();
            db.setAutoCommit(true);
            try (ResultSet rows = plain.executeQuery("select count(*) from jdbc_target")) {
                rows.next();
                check(rows.getLong(1) == 2, "a rolled back update");
            }
            try {
                update(db, "nobody");
                throw new AssertionError("no error");
            } catch (SQLException error) {
                check(error.getSQLState().equals("42704"), error.getSQLState());
                check(error.getMessage().contains("flow \"nobody\" does not exist"), error.getMessage());
            }
            plain.execute("select coco.drop_flow('jdbc', keep_targets => false)");
        }
    }
}
